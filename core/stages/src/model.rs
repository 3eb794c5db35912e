//! The artifact `model`: a Hugging Face folder, whoever made it.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Artifact, Class, Params, PlanCx, PlannedStage};
use fp8flow_model::{ModelConfig, ModelError, Weights};
use fp8flow_tensor::DType;
use fp8flow_tensor::cuda::attention;
use serde_json::{Map, Value, json};

use crate::{Engine, card_check};

/// The kind of the artifact.
pub(crate) const MODEL: &str = "model";

/// What a stage says at plan time of the model it will make.
pub(crate) fn facts(config: &ModelConfig, source: &Path) -> Map<String, Value> {
    let facts = json!({ "config": config.raw, "source": source });
    facts.as_object().cloned().unwrap_or_default()
}

/// The configuration of the model that `stage` will make, from its facts.
pub(crate) fn planned_config(stage: &PlannedStage) -> Option<ModelConfig> {
    let config = stage.fact("config")?.to_string();
    let source = stage.fact("source").and_then(Value::as_str).unwrap_or_default();
    ModelConfig::from_json(&config, Path::new(source)).ok()
}

/// The folder of a model that was made: `info.folder`, relative to the stage's own.
pub(crate) fn folder(artifact: &Artifact) -> PathBuf {
    artifact.dir.join(artifact.info["folder"].as_str().unwrap_or_default())
}

/// Configuration and weights of a model that was made, headers checked.
pub(crate) fn open(artifact: &Artifact) -> Result<(ModelConfig, Weights), ModelError> {
    open_folder(&folder(artifact), artifact.info["dequantize"] == true)
}

/// Configuration and weights in a folder, headers checked. Weights that are FP8 in blocks are an error, unless they are
/// to be multiplied out.
pub(crate) fn open_folder(folder: &Path, dequantize: bool) -> Result<(ModelConfig, Weights), ModelError> {
    let (config, blocks) =
        if dequantize { ModelConfig::open_dequantized(folder)? } else { (ModelConfig::open(folder)?, None) };
    let weights = Weights::open_dequantized(folder, &config, blocks)?;
    Ok((config, weights))
}

/// Bytes as people say them: `23.4 GB`, `0.71 GB`, `14.2 MB`.
pub(crate) fn gb(bytes: u64) -> String {
    match bytes as f64 / 1e9 {
        gb if gb < 0.0995 => format!("{:.1} MB", 1e3 * gb),
        gb if gb < 9.995 => format!("{gb:.2} GB"),
        gb => format!("{gb:.1} GB"),
    }
}

/// Parameters as people say them: `27.8 M`.
pub(crate) fn count(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

/// One line on a model.
pub(crate) fn line(config: &ModelConfig) -> String {
    format!(
        "llama, {} parameters: {} blocks, hidden {}, MLP {}, {} heads, {} key-value heads, vocabulary {}, {}context {}",
        count(fp8flow_model::parameter_count(config)),
        config.blocks,
        config.hidden_size,
        config.intermediate_size,
        config.heads,
        config.kv_heads,
        config.vocab_size,
        if config.tied { "tied head, " } else { "" },
        config.max_positions,
    )
}

/// Objects where the tokenizer of the edge `tokens` has more tokens than the model of the edge `model`.
pub(crate) fn check_vocabulary(cx: &mut PlanCx<'_>) {
    let tokens = cx.input("tokens").and_then(|stage| stage.fact("vocabulary")).and_then(Value::as_u64);
    let config = cx.input("model").and_then(planned_config);
    if let (Some(tokens), Some(config)) = (tokens, config)
        && tokens > config.vocab_size as u64
    {
        let rows = config.vocab_size;
        cx.error("tokens", format!("the tokenizer has {tokens} tokens, the model's vocabulary only {rows}"))
            .help(format!(
                "Use the model's own tokenizer, or a configuration whose `vocab_size` is at least {tokens}."
            ));
    }
}

/// Objects where the device has no attention for the model of the edge `model` in the stage's `precision`.
pub(crate) fn check_attention(cx: &mut PlanCx<'_>, engine: &Engine) {
    let Some(config) = cx.input("model").and_then(planned_config) else { return };
    let device = engine.device();
    let Some(card) = card_check::name(&*device) else { return };
    if let Some(reason) = attention::obstacle(config.head_dim, precision(cx.params())) {
        let help = match attention::obstacle(config.head_dim, DType::F32) {
            None => "Set `precision = \"f32\"`, which is slow on a card, or `device = \"cpu\"`.",
            Some(_) => "Set `device = \"cpu\"`.",
        };
        cx.error("precision", format!("the model does not run on {card}: {reason}"))
            .class(Class::Missing)
            .help(help);
    }
}

/// The type of activations that `precision` names.
pub(crate) fn precision(params: &Params) -> DType {
    if params.get::<&str>("precision") == "f32" { DType::F32 } else { DType::Bf16 }
}
