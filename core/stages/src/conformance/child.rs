//! The child: opens the plugin and runs the suite on it.

use std::path::{Path, PathBuf};

use fp8flow_host::{Found, HostError, Origin, Place, Plugin, Search, probe};
use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Error, ErrorKind, Host, Kernels, Options, Recipe, RecipeInfo, Result};
use fp8flow_tensor::{Card, Properties};
use fp8flow_testkit::card::open_and_use;
use fp8flow_testkit::{LEFT_OUT, OnCard, Outcome, Progress, Started, Tested, run_on};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::examined::{Examined, LeftOut, Line};
use crate::support;

/// Asks the child.
pub(super) const VARIABLE: &str = "FP8FLOW_PROBE_CONFORMANCE";

/// What is to be tried.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The plugin's library.
    pub(super) path: PathBuf,
    /// Checks that were done before.
    pub(super) skip: usize,
    /// The card that the layers work on, if not in the CPU's memory.
    pub(super) card: Option<usize>,
}

/// In the child, runs the suite and exits; otherwise does nothing.
pub fn run_if_child() {
    probe::answer(VARIABLE, |task| {
        let Ok(task) = serde_json::from_str::<Task>(&task.to_string_lossy()) else { return };
        // What a driver does to a process belongs to the surroundings that a plugin finds.
        let card = task.card.map(open_and_use).transpose();
        fp8flow_testkit::surroundings::remember();
        match card {
            Ok(card) => try_plugin(&task, card.as_ref()),
            Err(error) => say(&Line::NoCard { message: error.to_string() }),
        }
    });
}

fn try_plugin(task: &Task, card: Option<&Card>) {
    let mut hear = |progress: Progress| say(&progress.into());
    let library = FromFile::find(&task.path).and_then(|found| {
        let unfit = card.map_or_else(Vec::new, |card| unfit(&found, card));
        if let Some(card) = card {
            let checks = LEFT_OUT.map(|(check, reason)| LeftOut::new(check, reason));
            let left_out = checks.into_iter().chain(unfit.clone()).collect();
            say(&Line::Card { name: card.to_string(), left_out });
        }
        FromFile::open(found, &unfit)
    });
    match (library, card) {
        (Ok(library), None) => run_on(&library, task.skip, &mut hear),
        (Ok(library), Some(card)) => run_on(&OnCard::new(&library, card), task.skip, &mut hear),
        (Err(error), _) => say(&Line::Refused { message: error.to_string() }),
    }
}

/// The recipes of a plugin that are known not to run on `card`.
fn unfit(found: &Found, card: &Card) -> Vec<LeftOut> {
    let Properties { name, architecture, .. } = card.properties();
    let reason = |recipe: &String| {
        let reason = support::unfit(found.name(), recipe, *architecture)?;
        Some(LeftOut::new(recipe, format!("it {reason}, and {name} has less")))
    };
    found.manifest.recipes.iter().filter_map(reason).collect()
}

fn say(line: &Line) {
    probe::say(&json!(line).to_string());
}

impl From<Progress> for Line {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Begun { check, subject } => Self::Begun { check: check.to_owned(), subject },
            Progress::Ended(Outcome { check, subject, result }) => {
                let passed = result.is_ok();
                let (Ok(message) | Err(message)) = result;
                Self::Ended(Examined { check: check.to_owned(), subject, passed, message })
            }
            Progress::Lost => Self::Lost,
        }
    }
}

/// A plugin's library, for the suite.
struct FromFile {
    found: Found,
    recipes: Vec<RecipeInfo>,
}

impl FromFile {
    fn find(path: &Path) -> std::result::Result<Found, HostError> {
        let place = Place { origin: Origin::Path, path: path.to_owned() };
        Search::in_places(vec![place]).find(&path.to_string_lossy())
    }

    /// The library, without the recipes that are `left_out`.
    fn open(found: Found, left_out: &[LeftOut]) -> std::result::Result<Self, HostError> {
        let mut recipes = found.open(&fp8flow_testkit::host(Isa::best(), 1))?.recipes().to_vec();
        recipes.retain(|recipe| left_out.iter().all(|left_out| left_out.name != recipe.name));
        Ok(Self { found, recipes })
    }
}

impl Tested for FromFile {
    fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        Ok(self.recipes.clone())
    }

    fn start(&self, host: &Host) -> Result<Box<dyn Started>> {
        Ok(Box::new(Opened(self.found.open(host).map_err(plain)?)))
    }
}

struct Opened(Plugin);

impl Started for Opened {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        self.0.any_recipe(host, name, options)
    }

    fn kernels(&self, _: &Host) -> Result<Option<Box<dyn Kernels>>> {
        self.0.kernels().map_err(plain)
    }
}

/// The error of the plugin itself, where it is one.
fn plain(error: HostError) -> Error {
    match error {
        HostError::Call(error) => error,
        other => Error::new(ErrorKind::Internal, other.to_string()),
    }
}
