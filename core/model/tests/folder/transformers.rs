//! Folders that transformers wrote (`tests/parity/make_small_folders.py`) are read as what they are.

use fp8flow_kernels::Serial;
use fp8flow_model::{ModelConfig, ParameterKind, RopeScaling, StoredType, Weights};

use crate::data;

/// What the script put into element `i` of a parameter.
fn formula(name: &str, kind: ParameterKind, i: usize) -> f32 {
    let one = if kind == ParameterKind::Norm { 1.0 } else { 0.0 };
    ((7 * i + 13 * name.len()) % 64) as f32 / 128.0 - 0.25 + one
}

fn check_weights(folder: &str, dtype: StoredType, files: usize) -> ModelConfig {
    let config = ModelConfig::open(data(folder)).unwrap();
    let weights = Weights::open(data(folder), &config).unwrap();
    assert_eq!(weights.files().count(), files);
    let masters = weights.load(&Serial).unwrap();
    for (spec, tensor) in masters.iter() {
        assert_eq!(weights.stored_type(&spec.name), Some(dtype), "{}", spec.name);
        for (i, &element) in tensor.f32().iter().enumerate() {
            assert_eq!(element, formula(&spec.name, spec.kind, i), "{}[{i}]", spec.name);
        }
    }
    config
}

#[test]
fn an_untied_f32_model_in_one_file() {
    let config = check_weights("untied-f32", StoredType::F32, 1);
    assert!(!config.tied && !config.attention_bias && !config.mlp_bias);
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (2, 1, 8));
    assert_eq!((config.rope.theta, config.rope.scaling), (10_000.0, RopeScaling::None));
    assert_eq!(config.eos_token_ids, [2]);
}

#[test]
fn a_tied_bf16_model_with_biases_and_llama3_frequencies_in_shards() {
    let config = check_weights("tied-bf16-sharded", StoredType::BF16, 3);
    assert!(config.tied && config.attention_bias && config.mlp_bias);
    assert_eq!(config.head_dim, 12);
    assert_eq!(config.rope.theta, 10_000.0);
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 64,
    };
    assert_eq!(config.rope.scaling, expected);
    assert_eq!(config.eos_token_ids, [2, 3]);
}

#[test]
fn an_f16_model_in_the_old_spelling() {
    let config = check_weights("old-spelling-f16", StoredType::F16, 1);
    assert_eq!(config.rope.theta, 50_000.0);
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 4.0 });
}
