//! `train.sft` and `train.pt`: fine-tuning on answers, and training on whole documents.

mod fields;
mod report;
mod watch;

pub(crate) use report::evaluation as evaluation_line;
pub(crate) use watch::Watch;

use fp8flow_data::{Order, TokenSet};
use fp8flow_flow::{Field, Outcome, PlanCx, Planned, StageCx, StageError, StageKind};
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers, ModelConfig, Weights};
use fp8flow_sdk::Decision;
use fp8flow_tensor::{Arena, DType};
use fp8flow_train::{CHECKPOINTS, Job, METRICS, largest_micro_batch, train};
use serde_json::json;

use crate::data_tokenize;
use crate::failure::OrFail as _;
use crate::layers_filter;
use crate::model::{self, MODEL};
use crate::{Engine, backend};

/// What the examples are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// As they were tokenized.
    FineTune,
    /// Documents one after the other, cut into blocks.
    PreTrain,
}

pub(crate) struct Train {
    pub(crate) engine: Engine,
    pub(crate) task: Task,
}

impl StageKind for Train {
    fn name(&self) -> &'static str {
        match self.task {
            Task::FineTune => "train.sft",
            Task::PreTrain => "train.pt",
        }
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

    fn fields(&self) -> Vec<Field> {
        fields::fields(self.task)
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        fields::check(cx);
        model::check_vocabulary(cx);
        let backend = cx.section(backend::SECTION);
        if cx.params().get::<Option<&str>>("layers").is_none() && backend.is_some_and(backend::is_fp8) {
            cx.error("uses", "the workflow names an FP8 backend, but this stage no `layers`").help(
                "Add `layers = \"…\"` with the name of a `layers.filter` stage, or set `plugin = \"none\"` in [backend].",
            );
        }
        let Some(stage) = cx.input("model") else { return Planned::default() };
        let planned = Planned::new(json!({ "config": stage.fact("config"), "source": stage.fact("source") }));
        let Some(config) = model::planned_config(stage) else { return planned };
        planned.text(&fields::summary(cx.params(), &config))
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let params = cx.params();
        let model_folder = model::folder(cx.input("model"));
        let config = ModelConfig::open(&model_folder).or_fail()?;
        let tokens = cx.input("tokens");
        let (mut examples, mut held_out) = data_tokenize::open(tokens)?;
        if self.task == Task::PreTrain {
            let length = params.get::<Option<usize>>("block").unwrap_or(config.max_positions);
            examples = blocks(cx, &examples, length, &config)?;
            if !held_out.is_empty() {
                held_out = blocks(cx, &held_out, length, &config)?;
            }
        }
        let seed = cx.seed();
        let mut settings = fields::settings(params, seed);
        let order = Order::new(examples.len(), settings.per_step, seed, settings.shuffle)
            .map_err(fp8flow_train::TrainError::from)
            .or_fail()?;
        settings.set_steps(params, order.steps_per_epoch());
        if order.left_out_per_epoch() > 0 {
            cx.say(format!(
                "{} of {} examples are left out of each epoch: they do not fill a step of {}",
                order.left_out_per_epoch(),
                examples.len(),
                settings.per_step
            ));
        }

        let decisions = decisions(cx)?;
        let section = cx.section(backend::SECTION);
        let recipe = if decisions.is_empty() { None } else { backend::recipe(&self.engine, section)? };
        let mut job_settings = settings.train;
        job_settings.identity = identity(cx, recipe.as_deref(), &decisions);
        let fp8 = recipe.map(|recipe| Fp8Layers { recipe, decisions: decisions.clone() });
        let largest = largest_micro_batch(&examples, job_settings.micro)
            .max(largest_micro_batch(&held_out, job_settings.micro))
            .max(1);
        let options = DecoderOptions {
            dtype: if params.get::<&str>("precision") == "f32" { DType::F32 } else { DType::Bf16 },
            recompute: params.get::<&str>("recompute") == "block",
            tokens: largest,
        };
        let mut arena = Arena::allocate();
        let decoder = Decoder::new(&config, options, fp8, &mut arena)
            .map_err(fp8flow_train::TrainError::from)
            .or_fail()?;
        cx.say(report::memory(&decoder, &config, &job_settings));

        let device = &*self.engine.device;
        let steps = job_settings.steps;
        let job = Job {
            config: job_settings,
            device,
            decoder,
            decisions: decisions.clone(),
            train: &examples,
            held_out: &held_out,
            folder: cx.folder(),
        };
        let load = || Ok(Weights::open(&model_folder, &config)?.load(device.cpu().pool)?);
        let reporter = cx.reporter().clone();
        let tokenizer = data_tokenize::tokenizer(tokens);
        let mut watch = Watch::new(reporter, steps, tokenizer);
        let trained = train(job, load, cx.cancel(), &mut watch).or_fail()?;

        let folder =
            format!("{CHECKPOINTS}/{}", trained.checkpoint.file_name().unwrap_or_default().to_string_lossy());
        let report = report::Report::new(&trained, &decisions);
        let mut outcome = Outcome::new(json!({
            "folder": folder,
            "metrics": METRICS,
            "steps": steps,
            "report": report.json(),
        }))
        .summary(report.summary());
        for line in report.lines(&watch) {
            outcome = outcome.report(line);
        }
        outcome = outcome.report(format!("checkpoint: {}", cx.folder().join(&folder).display()));
        Ok(outcome.report(format!("metrics: {}", cx.folder().join(METRICS).display())))
    }
}

/// Name and decision of every linear layer; empty without `layers`.
fn decisions(cx: &StageCx<'_>) -> Result<Vec<(String, Decision)>, StageError> {
    let Some(layers) = cx.optional_input("layers") else { return Ok(Vec::new()) };
    let plan = layers_filter::read(&layers.dir)?;
    Ok(plan.layers.into_iter().map(|layer| (layer.facts.name, layer.decision)).collect())
}

/// `set` as blocks of `length` tokens, each document with its end token.
fn blocks(
    cx: &StageCx<'_>,
    set: &TokenSet,
    length: usize,
    config: &ModelConfig,
) -> Result<TokenSet, StageError> {
    let known = |end: &u32| (*end as usize) < set.vocabulary();
    let blocks = set.blocks(length, config.eos_token_ids.first().copied().filter(known)).or_fail()?;
    cx.say(format!(
        "{} documents in {} blocks of {length} tokens; the last {} tokens do not fill one",
        set.len(),
        blocks.set.len(),
        blocks.left_out
    ));
    Ok(blocks.set)
}

/// What every bit of the run depends on: the workflow's identity, this stage, the decisions and the recipe.
fn identity(
    cx: &StageCx<'_>,
    recipe: Option<&dyn fp8flow_sdk::Recipe>,
    decisions: &[(String, Decision)],
) -> String {
    let about = json!({
        "workflow": cx.plan().identity,
        "stage": cx.name(),
        "recipe": recipe.map(fp8flow_sdk::Recipe::describe),
        "decisions": decisions,
    });
    blake3::hash(about.to_string().as_bytes()).to_hex().to_string()
}
