//! Hugging Face folders in and out.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod config;
mod export;
mod golden;
mod init;
mod quantized;
mod rope;
mod safe_file;
mod transformers;
mod weights;

use std::path::{Path, PathBuf};

use fp8flow_model::{ModelConfig, Parameters, parameter_specs};

/// A small untied configuration, with `changes` to its keys (null removes one).
fn config_with(changes: &serde_json::Value) -> ModelConfig {
    let mut json = serde_json::json!({
        "model_type": "llama",
        "vocab_size": 24,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    });
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    ModelConfig::from_json(&json.to_string(), Path::new("config.json")).unwrap()
}

/// Parameters whose elements differ from each other and fill f32's fraction.
fn numbered(config: &ModelConfig) -> Parameters {
    let mut parameters = Parameters::zeros(&parameter_specs(config));
    let mut next = 0.0;
    for tensor in parameters.tensors_mut() {
        for element in tensor.f32_mut() {
            next += 1.0;
            *element = (next - 700.0) / 997.0;
        }
    }
    parameters
}

/// A folder of `tests/data`.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The bits of every parameter, by name.
fn bits(parameters: &Parameters) -> Vec<(String, Vec<u32>)> {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect();
    parameters.iter().map(|(spec, tensor)| (spec.name.clone(), bits(tensor.f32()))).collect()
}

/// Names in a folder, sorted.
fn entries(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}
