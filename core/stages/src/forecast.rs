//! What a workflow will take of memory and disk, as far as that is known before its examples are read.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Plan, PlannedStage};
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers, ModelConfig, parameter_count};
use fp8flow_tensor::Arena;
use serde::Serialize;

use crate::model::{self, MODEL};
use crate::{Engine, LayerPlan, backend, train};

/// Bytes of a parameter in a checkpoint: the f32 master and two moments.
const CHECKPOINT: u64 = 12;
/// Tokens up to which memory is measured; beyond, it grows by the same amount with each.
const MEASURED: usize = 4096;

/// What a workflow will take.
pub(crate) struct Forecast {
    /// Stage by stage, of those that hold a model.
    needs: Vec<Needs>,
}

/// The memory of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Needs {
    /// Its name.
    pub(crate) stage: String,
    /// Parameters of its model.
    pub(crate) parameters: u64,
    /// Masters and, in training, moments and gradients, in bytes.
    pub(crate) states: u64,
    /// Copies of the gradient; none where nothing is trained.
    pub(crate) gradients: Option<u64>,
    /// Activations and what the backend keeps, in bytes.
    pub(crate) working: Option<u64>,
    /// Tokens of a micro-batch.
    pub(crate) tokens: Option<u64>,
    /// Whether it has that many tokens, rather than at most.
    pub(crate) exact: bool,
}

/// Something that will be written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Output {
    /// What, in a few words.
    pub(crate) what: String,
    /// Where.
    pub(crate) folder: PathBuf,
    /// How much, at most.
    pub(crate) bytes: u64,
}

impl Forecast {
    /// The forecast of `plan` on `engine`.
    pub(crate) fn of(engine: &Engine, plan: &Plan) -> Self {
        let models = plan.stages.iter().filter(|stage| stage.produces == MODEL);
        Self { needs: models.filter_map(|stage| needs(engine, plan, stage)).collect() }
    }

    /// The stage that takes most.
    pub(crate) fn largest(&self) -> Option<&Needs> {
        self.needs.iter().max_by_key(|needs| needs.states.saturating_add(needs.working.unwrap_or(0)))
    }

    /// What is written, with the folder of runs at `runs`.
    pub(crate) fn outputs(&self, plan: &Plan, runs: &Path) -> Vec<Output> {
        let mut outputs = Vec::new();
        for needs in &self.needs {
            let Some(stage) = plan.stage(&needs.stage) else { continue };
            let mut push = |what: &str, folder: &Path, bytes| {
                outputs.push(Output { what: what.into(), folder: folder.to_owned(), bytes });
            };
            let parameters = needs.parameters;
            match stage.uses.as_str() {
                "model.init" => push("of fresh weights", runs, 2 * parameters),
                "checkpoint.export" => {
                    let bytes = if stage.params.get::<&str>("dtype") == "f32" { 4 } else { 2 };
                    push("of export", &stage.params.get::<PathBuf>("dir"), bytes * parameters);
                }
                _ if needs.gradients.is_some() => {
                    // The newest is whole before the oldest is removed.
                    let kept = stage.params.get::<u64>("checkpoint.keep").saturating_add(1);
                    let written =
                        if stage.params.get::<u64>("checkpoint.every_steps") == 0 { 1 } else { kept };
                    push("of checkpoints", runs, (CHECKPOINT * parameters).saturating_mul(written));
                }
                _ => {}
            }
        }
        outputs
    }
}

fn needs(engine: &Engine, plan: &Plan, stage: &PlannedStage) -> Option<Needs> {
    let config = model::planned_config(stage)?;
    let parameters = parameter_count(&config);
    let plain = Needs {
        stage: stage.name.clone(),
        parameters,
        states: 4 * parameters,
        gradients: None,
        working: None,
        tokens: None,
        exact: true,
    };
    let Some(task) = train::Task::of(&stage.uses) else { return Some(plain) };
    let settings = train::settings(&stage.params);
    let input = |edge: &str| {
        let (_, name) = stage.inputs.iter().find(|(key, _)| key == edge)?;
        plan.stage(name)
    };
    let context = config.max_positions;
    let (length, exact) = match task {
        train::Task::PreTrain => (stage.params.get::<Option<usize>>("block").unwrap_or(context), true),
        train::Task::FineTune => {
            let cutoff = input("tokens").and_then(|stage| stage.params.get::<Option<usize>>("cutoff"));
            (cutoff.unwrap_or(context), false)
        }
    };
    let tokens = stage.params.get::<usize>("batch.micro").saturating_mul(length.min(context));
    let layers = input("layers").and_then(|stage| stage.fact("layers"));
    let layers = layers.and_then(|layers| serde_json::from_value::<LayerPlan>(layers.clone()).ok());
    let options = DecoderOptions {
        dtype: model::precision(&stage.params),
        recompute: stage.params.get::<&str>("recompute") == "block",
        tokens: 0,
    };
    let measure = |tokens| {
        let section = plan.section(backend::SECTION)?;
        let layers = layers.clone().unwrap_or_default();
        working(engine, section, &config, &layers, DecoderOptions { tokens, ..options })
    };
    Some(Needs {
        states: settings.state_bytes(parameters),
        gradients: Some(settings.gradients() as u64),
        working: at(tokens, measure),
        tokens: Some(tokens as u64),
        exact,
        ..plain
    })
}

/// What `measure` would find for `tokens`. Every region grows by the same amount with each token, so that a few show it
/// without taking memory for the tables of a long context.
pub(crate) fn at(tokens: usize, measure: impl Fn(usize) -> Option<u64>) -> Option<u64> {
    if tokens <= MEASURED {
        return measure(tokens);
    }
    let (half, whole) = (measure(MEASURED / 2)?, measure(MEASURED)?);
    let growth = u128::from(whole.saturating_sub(half)) * (tokens - MEASURED) as u128;
    let beyond = growth.div_ceil((MEASURED / 2) as u128);
    Some(u64::try_from(u128::from(whole).saturating_add(beyond)).unwrap_or(u64::MAX))
}

/// Bytes of activations, and of what the backend keeps; none where the backend does not tell.
pub(crate) fn working(
    engine: &Engine,
    section: &fp8flow_flow::PlannedSection,
    config: &ModelConfig,
    layers: &LayerPlan,
    options: DecoderOptions,
) -> Option<u64> {
    let recipe = backend::recipe(engine, section, layers).ok()?;
    let fp8 = recipe.map(|recipe| Fp8Layers { recipe, layers: layers.decided() });
    let decoder = Decoder::new(config, options, fp8, &mut Arena::measure()).ok()?;
    Some((decoder.bytes() + decoder.backend_bytes()) as u64)
}

#[cfg(test)]
mod tests {
    use fp8flow_tensor::DType;
    use serde_json::json;

    use super::*;

    #[test]
    fn many_tokens_take_what_a_few_show() {
        let json = json!({
            "model_type": "llama", "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 65536,
        });
        let config = ModelConfig::from_json(&json.to_string(), Path::new("config.json")).expect("a model");
        for (dtype, recompute) in [(DType::Bf16, false), (DType::Bf16, true), (DType::F32, false)] {
            let measure = |tokens| {
                let options = DecoderOptions { dtype, recompute, tokens };
                let decoder = Decoder::new(&config, options, None, &mut Arena::measure()).ok()?;
                Some((decoder.bytes() + decoder.backend_bytes()) as u64)
            };
            for tokens in [1, MEASURED, MEASURED + 1, 10_000, 50_001] {
                let (found, exact) = (at(tokens, measure).expect("bytes"), measure(tokens).expect("bytes"));
                // Regions start at multiples of 64 bytes.
                assert!(found.abs_diff(exact) * 1000 <= exact, "{tokens} tokens: {found}, {exact} expected");
            }
        }
        assert_eq!(at(usize::MAX, |tokens| Some(tokens as u64 * 1_000_000)), Some(u64::MAX));
    }
}
