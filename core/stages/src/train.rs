//! `train.sft` and `train.pt`: fine-tuning on answers, and training on whole documents.

mod again;
mod evidence;
mod examples;
mod fallback;
mod fields;
mod memory;
mod report;
mod settings;
mod speed;
mod watch;

pub(crate) use again::{first_other_tensor, parted};
pub(crate) use report::evaluation as evaluation_line;
pub(crate) use watch::Watch;

use std::path::{Path, PathBuf};

use fp8flow_data::Tokenizer;
use fp8flow_flow::{
    Difference, Extent, Field, Outcome, Params, PlanCx, Planned, Redone, StageCx, StageError, StageKind,
};
use fp8flow_host::machine::{Memory, give_back_freed};
use fp8flow_model::{Decoder, Fp8Layers, ModelConfig};
use fp8flow_sdk::Decision;
use fp8flow_tensor::Arena;
use fp8flow_train::checkpoint;
use fp8flow_train::{
    CHECKPOINTS, Checkpoints, EVALUATIONS, Job, METRICS, RecipeState, TELEMETRY, TrainConfig, TrainError,
    largest_micro_batch, train,
};
use serde_json::json;

use crate::card_room::CardRoom;
use crate::data_tokenize;
use crate::failure::{OrFail as _, digest};
use crate::layer_plan::LayerPlan;
use crate::layers_filter;
use crate::model::{self, MODEL};
use crate::{Engine, backend, card_check, forecast};

/// The names of the kinds.
pub(crate) const SFT: &str = "train.sft";
pub(crate) const PT: &str = "train.pt";

/// What the examples are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// As they were tokenized.
    FineTune,
    /// Documents one after the other, cut into blocks.
    PreTrain,
}

impl Task {
    /// What a kind of stage trains on, if it trains.
    pub(crate) fn of(uses: &str) -> Option<Self> {
        [Self::FineTune, Self::PreTrain].into_iter().find(|task| task.name() == uses)
    }

    fn name(self) -> &'static str {
        match self {
            Self::FineTune => SFT,
            Self::PreTrain => PT,
        }
    }
}

/// What the keys of a training stage say, all but the number of steps.
pub(crate) fn settings(params: &Params) -> TrainConfig {
    settings::settings(params, 0)
}

pub(crate) struct Train {
    pub(crate) engine: Engine,
    pub(crate) task: Task,
}

impl StageKind for Train {
    fn name(&self) -> &'static str {
        self.task.name()
    }

    fn about(&self) -> &'static str {
        match self.task {
            Task::FineTune => "Fine-tunes a model on answers, its FP8 layers through the backend.",
            Task::PreTrain => {
                "Trains a model on documents, one after the other with their end token and cut into blocks."
            }
        }
    }

    fn produces(&self) -> &'static str {
        MODEL
    }

    /// 2: the chain of digests is made by XXH3.
    fn revision(&self) -> u32 {
        2
    }

    fn fields(&self) -> Vec<Field> {
        fields::fields(self.task)
    }

    fn extent(&self, params: &Params) -> Extent {
        settings::extent(params)
    }

    fn state_of(&self, path: &Path) -> Option<u64> {
        let checkpoint = path.strip_prefix(CHECKPOINTS).ok()?.parent()?;
        checkpoint::step_of(checkpoint)
    }

    fn links(&self) -> &'static [&'static str] {
        &[METRICS, TELEMETRY, CHECKPOINTS]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        fields::check(cx);
        model::check_vocabulary(cx);
        model::check_attention(cx, &self.engine);
        layers_filter::check_fit(cx);
        let backend = cx.section(backend::SECTION);
        if cx.params().get::<Option<&str>>("layers").is_none() && backend.is_some_and(backend::is_fp8) {
            cx.error("uses", "the workflow names an FP8 backend, but this stage no `layers`").help(
                "Add `layers = \"…\"` with the name of a `layers.filter` stage, or set `plugin = \"none\"` in [backend].",
            );
        }
        if cx.params().get::<Option<&str>>("recipe_state").is_some() && !backend.is_none_or(backend::is_fp8) {
            cx.error("recipe_state", "there is no FP8 recipe whose state this could be")
                .help("Remove it, or name a plugin in [backend].");
        }
        let Some(stage) = cx.input("model") else { return Planned::default() };
        let mut planned =
            Planned::new(json!({ "config": stage.fact("config"), "source": stage.fact("source") }));
        let Some(config) = model::planned_config(stage) else { return planned };
        if self.task == Task::PreTrain
            && let Some(block) = cx.params().get::<Option<u64>>("block")
            && block > config.max_positions as u64
        {
            let context = config.max_positions;
            cx.error(
                "block",
                format!("blocks of {block} tokens do not fit the model's context of {context}"),
            );
        }
        let needs = forecast::Needs::of_training(&self.engine, self.task, cx, &config);
        planned.facts[forecast::FACT] = json!(needs);
        let mut planned = planned.text(&settings::summary(cx.params(), &config));
        if let Extent::Bound { why, .. } = settings::extent(cx.params()) {
            planned = planned.line(why);
        }
        let card = CardRoom::look(&self.engine);
        let planned = planned.line(memory::line(&needs, card.as_ref()));
        let options = forecast::options(cx.params(), needs.tokens.unwrap_or_default() as usize);
        let shortage = memory::shortage(&needs, &settings(cx.params()), options, card.as_ref());
        let speed = speed::line(&self.engine, cx, &config, &needs);
        shortage.into_iter().chain(speed).fold(planned, Planned::line)
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let params = cx.params();
        let (mut config, weights) = model::open(cx.input("model")).or_fail()?;
        let section = cx.section(backend::SECTION);
        let fallback = fallback::of(section);
        fallback::mark(&mut config, fallback);
        let (examples, held_out) = examples::open(self.task, cx, &config)?;
        let mut settings = settings::settings(params, cx.seed());
        let per_epoch = examples::steps_per_epoch(cx, &settings, examples.len())?;
        settings::set_steps(&mut settings, params, per_epoch)?;
        cx.note(json!({ "steps": settings.steps, "steps_per_epoch": per_epoch }));
        if fallback.is_some() {
            let precision: &str = params.get("precision");
            settings.precision = Some(format!("{precision} (fallback)"));
            cx.warn(format!("nothing runs in FP8: `fallback` is set and the run goes on in {precision}"));
        }

        let layers = layer_plan(cx, &config)?;
        let decisions = layers.decisions();
        let recipe = backend::recipe(&self.engine, section, &layers)?;
        settings.identity = identity(cx, recipe.as_deref(), &decisions)?;
        let recipe_state: Option<PathBuf> = params.get("recipe_state");
        let recipe_state = recipe_state.map(|path| RecipeState::read(&path)).transpose().or_fail()?;
        let tokens = [&examples, &held_out].map(|set| largest_micro_batch(set, settings.micro));
        let options = forecast::options(params, tokens[0].max(tokens[1]));
        // To show answers to held-out examples; it may take a good part of a small model's memory.
        let shows = !held_out.is_empty();
        let tokenizer = shows.then(|| data_tokenize::tokenizer(cx.input("tokens"))).flatten();
        let shown_with = tokenizer.as_ref().map_or(0, Tokenizer::vocabulary) as u64;
        let planned = forecast::memory(&self.engine, section, &config, &layers, &settings, options)
            .map(|memory| memory.with_examples(&[&examples, &held_out]).with_tokenizer(shown_with));
        let there = memory::There { host: Memory::look(), card: CardRoom::look(&self.engine) };
        if let Some(memory) = &planned {
            memory::Needs::new(memory, &settings, options).check(&there)?;
        }
        if let Some(checked) = card_check::operations(&self.engine, &config, model::precision(params))? {
            cx.say(checked.line());
        }
        let challenged = evidence::challenge(&self.engine, section, &layers)?;
        for challenged in &challenged {
            cx.say(challenged.line());
        }
        let device = self.engine.device();
        let device = &*device;
        let fp8 = recipe.map(|recipe| Fp8Layers { recipe, layers: layers.decided() });
        let decoder = Decoder::new(&config, options, fp8, &mut Arena::of(device))
            .map_err(TrainError::from)
            .or_fail()?;
        if let Some(memory) = &planned {
            cx.say(memory::plan(memory, options.tokens, there.card.as_ref()));
        }

        let limits = settings::limits(params);
        let mut watch = Watch::new(cx.reporter().clone(), settings.steps, tokenizer).warning_above(limits);
        let job = Job {
            config: settings,
            device,
            decoder,
            decisions: decisions.clone(),
            recipe_state,
            train: &examples,
            held_out: &held_out,
            folder: cx.folder(),
        };
        let cancel = cx.cancel();
        // The files are no longer mapped once they are read.
        let load = move || Ok(weights.load_until(device.cpu().pool, cancel)?);
        // What reading and tokenizing took is free by now, but still held.
        give_back_freed();
        let trained = train(job, load, cx.cancel(), &mut watch).or_fail()?;

        let folder_of = |checkpoint: &Path| {
            format!("{CHECKPOINTS}/{}", checkpoint.file_name().unwrap_or_default().to_string_lossy())
        };
        let folder = folder_of(&trained.checkpoint);
        let report = report::Report::new(&trained, &decisions, &challenged, limits, fallback, planned);
        // Times, what is watched, and states on the way: the bits of the result are the last state and the chain.
        let checkpoints = Checkpoints::new(cx.folder().join(CHECKPOINTS), usize::MAX);
        let on_the_way = checkpoints.steps().or_fail()?.into_iter().map(|step| checkpoints.path(step));
        let on_the_way = on_the_way.filter(|path| *path != trained.checkpoint).map(|path| folder_of(&path));
        let mut account = report.json();
        account["steps_per_epoch"] = per_epoch.into();
        let aside = [METRICS, TELEMETRY, EVALUATIONS].map(String::from).into_iter().chain(on_the_way);
        let mut outcome = Outcome::new(json!({ "folder": folder, "metrics": METRICS }))
            .account(account)
            .aside(aside)
            .summary(report.summary());
        outcome.report = report.lines(&watch);
        Ok(outcome
            .report(format!("checkpoint: {}", trained.checkpoint.display()))
            .report(format!("metrics: {}", cx.folder().join(METRICS).display())))
    }

    fn differences(
        &self,
        stage: &str,
        redone: &Redone,
        files: Vec<Difference>,
    ) -> Result<Vec<Difference>, StageError> {
        again::differences(stage, [&redone.then, &redone.now], files)
    }
}

/// The decision for every linear layer; none without `layers`.
fn layer_plan(cx: &StageCx<'_>, config: &ModelConfig) -> Result<LayerPlan, StageError> {
    cx.optional_input("layers")
        .map_or_else(|| Ok(LayerPlan::default()), |layers| layers_filter::read(&layers.dir, config))
}

/// What every bit of the result depends on: the examples, the values of this stage and those before it, the decisions, the
/// recipe and what it starts from. Other stages are no part of it: with them the state of another run would be another.
fn identity(
    cx: &StageCx<'_>,
    recipe: Option<&dyn fp8flow_sdk::Recipe>,
    decisions: &[(String, Decision)],
) -> Result<String, StageError> {
    let recipe_state: Option<PathBuf> = cx.params().get("recipe_state");
    let about = json!({
        "tokens": data_tokenize::digests(cx, cx.input("tokens"))?,
        "lineage": cx.lineage(),
        "recipe": recipe.map(fp8flow_sdk::Recipe::describe),
        "decisions": decisions,
        "recipe_state": recipe_state.as_deref().map(|path| digest(cx, path)).transpose()?,
    });
    Ok(fp8flow_flow::digest::of_json(&about))
}
