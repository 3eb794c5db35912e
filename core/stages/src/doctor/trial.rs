//! A plugin's recipes at work: one FP8 linear forward and backward each, held against exact arithmetic, and on a card
//! against that of the CPU, in a process of its own, for a plugin may crash when it computes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fp8flow_host::probe::{self, Probe};
use fp8flow_host::{Found, HostError, Origin, Place as Folder, Plugin, Pool, Search, Services};
use fp8flow_sdk::kernels::Isa;
use fp8flow_tensor::Card;
use fp8flow_testkit::challenge;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Question;
use crate::device::{CUDA, Place};
use crate::{Engine, RecipeChoice, backend, card_check};

/// Asks the child.
const VARIABLE: &str = "FP8FLOW_PROBE_RECIPES";

/// What is to be tried.
#[derive(Serialize, Deserialize)]
struct Task {
    /// The plugin's library.
    path: PathBuf,
    recipes: Vec<RecipeChoice>,
    isa: String,
    threads: usize,
    /// The number of the card that the recipes are to run on, if on one.
    card: Option<usize>,
}

/// How a recipe has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// The recipe.
    pub(super) recipe: String,
    /// Signal-to-noise in dB of y, dx and dW, as measured against exact arithmetic; none where nothing was lost.
    pub(super) db: [Option<f64>; 3],
    /// FP8 GEMMs counted: fprop, dgrad, wgrad.
    pub(super) counted: [u64; 3],
    /// Micro-batches that ran.
    pub(super) micro_batches: u64,
    /// How near a card comes to the CPU, in dB of y, dx and dW; none where nothing differs, or without a card.
    pub(super) card_db: Option<[Option<f64>; 3]>,
    /// The measurement in words.
    pub(super) words: String,
    /// What speaks against it, if anything does.
    pub(super) problem: Option<String>,
}

/// In the child, tries what it was asked to and exits; otherwise does nothing.
pub fn run_if_child() {
    probe::answer(VARIABLE, |task| {
        let Ok(task) = serde_json::from_str::<Task>(&task.to_string_lossy()) else { return };
        let (Some(isa), Ok(pool)) = (Isa::from_name(&task.isa), Pool::new(task.threads)) else { return };
        let pool = Arc::new(pool);
        let host = Services::new(isa, pool.clone(), Arc::default()).host();
        let engine = Engine::new(isa, pool, host, Vec::new());
        let refuse = |error: String| probe::say(&json!({ "error": error }).to_string());
        if let Some(Err(error)) = task.card.map(|number| engine.move_to(Place::Card(number))) {
            return refuse(error.to_string());
        }
        probe::say("the load");
        let answer = find(&task.path).and_then(|found| run(&found, &task.recipes, &engine, probe::say));
        match answer {
            Ok(trials) => trials.iter().for_each(|trial| probe::say(&json!(trial).to_string())),
            Err(error) => refuse(error.to_string()),
        }
    });
}

/// Tries `recipes` of a plugin; an error in words if it does not survive that, or cannot be loaded.
pub(super) fn trials(
    found: &Found,
    recipes: Vec<RecipeChoice>,
    question: &Question<'_>,
) -> Result<Vec<Trial>, String> {
    let Some(probe) = Probe::this_executable() else {
        return run(found, &recipes, question.engine, |_| ()).map_err(|error| error.to_string());
    };
    let isa = question.engine.cpu().isa.name().to_owned();
    // A backend that is no card's is never given its memory; the plan says so.
    let takes_cards = found.manifest.devices.iter().any(|device| device == CUDA);
    let card = question.engine.device().card().filter(|_| takes_cards).map(Card::ordinal);
    let task = Task { path: found.path.clone(), recipes, isa, threads: question.threads, card };
    let lines = probe.ask(VARIABLE, json!(task).to_string()).map_err(|failure| failure.to_string())?;
    let answers = lines.iter().filter(|line| line.starts_with('{'));
    let trials: Result<Vec<Trial>, _> = answers.clone().map(|line| serde_json::from_str(line)).collect();
    match trials {
        Ok(trials) if trials.len() == task.recipes.len() => Ok(trials),
        _ => {
            let answer = answers.clone().next().cloned().unwrap_or_default();
            let error = serde_json::from_str::<Value>(&answer).ok();
            let words = error.and_then(|error| Some(error["error"].as_str()?.to_owned()));
            Err(words.unwrap_or_else(|| "the process that should try it did not answer".into()))
        }
    }
}

fn find(path: &Path) -> Result<Found, HostError> {
    let place = Folder { origin: Origin::Path, path: path.to_owned() };
    Search::in_places(vec![place]).find(&path.to_string_lossy())
}

fn run(
    found: &Found,
    recipes: &[RecipeChoice],
    engine: &Engine,
    begin: impl Fn(&str),
) -> Result<Vec<Trial>, HostError> {
    let plugin = found.open(&engine.host)?;
    let attempt = |choice: &RecipeChoice| {
        begin(&format!("recipe {}: forward and backward", choice.recipe));
        let tried = plugin
            .recipe(&choice.recipe, &choice.options)
            .map_err(|error| error.to_string())
            .and_then(|recipe| challenge(recipe).map_err(|failure| failure.to_string()));
        let shape = tried.as_ref().ok().map(|evidence| evidence.shape);
        let trial = Trial::new(&choice.recipe, tried);
        match shape {
            Some(shape) if trial.problem.is_none() => trial.on_card(engine, &plugin, choice, shape),
            _ => trial,
        }
    };
    Ok(recipes.iter().map(attempt).collect())
}

impl Trial {
    /// The same, after the recipe was tried on the engine's card, if it has one.
    fn on_card(self, engine: &Engine, plugin: &Plugin, choice: &RecipeChoice, shape: [usize; 2]) -> Self {
        match card_check::layer(engine, &choice.recipe, shape, || backend::configure(plugin, choice)) {
            Ok(db) => {
                Self { card_db: db.map(|db| db.map(|db| Some(db).filter(|db| db.is_finite()))), ..self }
            }
            Err(error) => Self { problem: Some(error.to_string()), ..self },
        }
    }

    fn new(recipe: &str, tried: Result<fp8flow_testkit::Evidence, String>) -> Self {
        let recipe = recipe.to_owned();
        match tried {
            Ok(evidence) => Self {
                recipe,
                db: evidence.db.map(|[a, b]| Some(a.min(b)).filter(|db| db.is_finite())),
                counted: [evidence.counters.fprop, evidence.counters.dgrad, evidence.counters.wgrad],
                micro_batches: evidence.micro_batches,
                card_db: None,
                words: evidence.to_string(),
                problem: evidence.verdict().err().map(|objection| objection.to_string()),
            },
            Err(problem) => Self {
                recipe,
                db: [None; 3],
                counted: [0; 3],
                micro_batches: 0,
                card_db: None,
                words: String::new(),
                problem: Some(problem),
            },
        }
    }
}
