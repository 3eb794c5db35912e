//! What a workflow will take of memory and disk, as far as that is known before its examples are read.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Params, Plan, PlanCx, PlannedSection, PlannedStage};
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers, ModelConfig, parameter_count};
use fp8flow_tensor::Arena;
use fp8flow_train::TrainConfig;
use serde::{Deserialize, Serialize};

use crate::model::{self, MODEL};
use crate::{Engine, LayerPlan, TrainingMemory, backend, data_tokenize, train};

/// Bytes of a parameter in a checkpoint: the f32 master and two moments.
const CHECKPOINT: u64 = 12;
/// Tokens that no micro-batch can have: positions are counted in 32 bits.
const TOO_MANY: usize = 1 << 32;
/// The fact of a training stage that holds its [`Needs`].
pub(crate) const FACT: &str = "memory";

/// What a workflow will take.
pub(crate) struct Forecast {
    /// Stage by stage, of those that hold a model.
    needs: Vec<(String, Needs)>,
}

/// The memory of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Needs {
    /// Parameters of its model.
    pub(crate) parameters: u64,
    /// The most it holds at once, in bytes.
    pub(crate) peak: u64,
    /// The same in parts.
    #[serde(flatten)]
    pub(crate) memory: TrainingMemory,
    /// Copies of the gradient; none where nothing is trained.
    pub(crate) gradients: Option<u64>,
    /// Tokens of a micro-batch.
    pub(crate) tokens: Option<u64>,
    /// Whether it has that many tokens, rather than at most.
    pub(crate) exact: bool,
}

/// Something that will be written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Output {
    /// The stage that writes it.
    #[serde(skip)]
    pub(crate) stage: String,
    /// What, in a few words.
    pub(crate) what: String,
    /// Where.
    pub(crate) folder: PathBuf,
    /// How much, at most.
    pub(crate) bytes: u64,
    /// How much where the stage goes on from what it has written before.
    #[serde(skip)]
    pub(crate) least: u64,
}

impl Forecast {
    /// The forecast of `plan`.
    pub(crate) fn of(plan: &Plan) -> Self {
        let models = plan.stages.iter().filter(|stage| stage.produces == MODEL);
        let needs = models.filter_map(|stage| Some((stage.name.clone(), Needs::of(stage)?)));
        Self { needs: needs.collect() }
    }

    /// The stage that takes most, by its name.
    pub(crate) fn largest(&self) -> Option<&(String, Needs)> {
        self.needs.iter().max_by_key(|(_, needs)| needs.peak)
    }

    /// What is written, with the folder of runs at `runs`.
    pub(crate) fn outputs(&self, plan: &Plan, runs: &Path) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (name, needs) in &self.needs {
            let Some(stage) = plan.stage(name) else { continue };
            let mut push = |what: &str, folder: &Path, bytes: u64, least: u64| {
                let (stage, what, folder) = (name.clone(), what.into(), folder.to_owned());
                outputs.push(Output { stage, what, folder, bytes, least });
            };
            let parameters = needs.parameters;
            match stage.uses.as_str() {
                "model.init" => push("of fresh weights", runs, 2 * parameters, 2 * parameters),
                "checkpoint.export" => {
                    let bytes = if stage.params.get::<&str>("dtype") == "f32" { 4 } else { 2 };
                    push(
                        "of export",
                        &stage.params.get::<PathBuf>("dir"),
                        bytes * parameters,
                        bytes * parameters,
                    );
                }
                _ if needs.gradients.is_some() => {
                    // The newest is whole before the oldest is removed.
                    let kept = stage.params.get::<u64>("checkpoint.keep").saturating_add(1);
                    let written =
                        if stage.params.get::<u64>("checkpoint.every_steps") == 0 { 1 } else { kept };
                    let one = CHECKPOINT * parameters;
                    push("of checkpoints", runs, one.saturating_mul(written), one);
                }
                _ => {}
            }
        }
        outputs
    }
}

impl Needs {
    /// Those of a stage that was planned: what it has said itself, or its weights.
    fn of(stage: &PlannedStage) -> Option<Self> {
        let said = stage.fact(FACT).and_then(|needs| serde_json::from_value(needs.clone()).ok());
        said.or_else(|| {
            let parameters = parameter_count(&model::planned_config(stage)?);
            let memory = TrainingMemory::of_states(4 * parameters);
            Some(Self { parameters, peak: memory.peak(), memory, gradients: None, tokens: None, exact: true })
        })
    }

    /// Those of a training stage of `config` that is being planned.
    pub(crate) fn of_training(
        engine: &Engine,
        task: train::Task,
        cx: &PlanCx<'_>,
        config: &ModelConfig,
    ) -> Self {
        let (params, context) = (cx.params(), config.max_positions);
        let (length, exact) = match task {
            train::Task::PreTrain => (params.get::<Option<usize>>("block").unwrap_or(context), true),
            train::Task::FineTune => {
                let tokens = cx.input("tokens");
                let cutoff = tokens.and_then(|stage| stage.params.get::<Option<usize>>("cutoff"));
                (cutoff.unwrap_or(context), false)
            }
        };
        let tokens = params.get::<usize>("batch.micro").saturating_mul(length.min(context));
        let settings = train::settings(params);
        let memory = cx.section(backend::SECTION).and_then(|section| {
            memory(engine, section, config, &planned_layers(cx), &settings, options(params, tokens))
        });
        let parameters = parameter_count(config);
        let shown_with = cx.input("tokens").map_or(0, data_tokenize::shown_with);
        // A backend that does not tell will say why when it is used.
        let memory = memory.unwrap_or_else(|| {
            let states = TrainingMemory::of_states(settings.state_bytes(parameters));
            if engine.device().card().is_some() { states.moved_to_card(parameters) } else { states }
        });
        let memory = memory.with_tokenizer(shown_with);
        Self {
            parameters,
            peak: memory.peak(),
            memory,
            gradients: Some(settings.gradients() as u64),
            tokens: Some(tokens as u64),
            exact,
        }
    }
}

/// The decisions that a stage which is being planned is given; none without any.
pub(crate) fn planned_layers(cx: &PlanCx<'_>) -> LayerPlan {
    let layers = cx.input("layers").and_then(|stage| stage.fact("layers"));
    layers.and_then(|layers| serde_json::from_value(layers.clone()).ok()).unwrap_or_default()
}

/// How the decoder of a training stage runs on micro-batches of up to `tokens` tokens.
pub(crate) fn options(params: &Params, tokens: usize) -> DecoderOptions {
    let recompute = params.get::<&str>("recompute") == "block";
    DecoderOptions { dtype: model::precision(params), recompute, tokens }
}

/// The memory of a training run; none where the backend does not tell. Takes none itself.
pub(crate) fn memory(
    engine: &Engine,
    section: &PlannedSection,
    config: &ModelConfig,
    layers: &LayerPlan,
    train: &TrainConfig,
    options: DecoderOptions,
) -> Option<TrainingMemory> {
    if options.tokens >= TOO_MANY {
        let states = TrainingMemory::of_states(train.state_bytes(parameter_count(config)));
        let too_many = TrainingMemory { activations: u64::MAX, ..states };
        let on_card = engine.device().card().is_some();
        return Some(if on_card { too_many.moved_to_card(parameter_count(config)) } else { too_many });
    }
    let recipe = backend::recipe(engine, section, layers).ok()?;
    let fp8 = recipe.map(|recipe| Fp8Layers { recipe, layers: layers.decided() });
    let device = engine.device();
    let decoder = Decoder::new(config, options, fp8, &mut Arena::measure_of(&*device)).ok()?;
    Some(TrainingMemory::of(train, &decoder, &*device))
}
