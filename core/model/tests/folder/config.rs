//! `config.json`: defaults, and one clear error for each thing that is wrong or not supported.

use std::path::Path;

use fp8flow_model::{ModelConfig, ModelError, RopeScaling};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(text: &str) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_json(text, Path::new("model/config.json"))
}

/// The message for a Llama configuration with these keys.
fn error(keys: &Value) -> String {
    let mut json = json!({ "model_type": "llama" });
    for (key, value) in keys.as_object().unwrap() {
        json[key] = value.clone();
    }
    read(&json.to_string()).unwrap_err().to_string()
}

#[test]
fn absent_keys_have_the_defaults_of_llama_config() {
    let config = read(r#"{"model_type": "llama"}"#).unwrap();
    let expected = ModelConfig {
        vocab_size: 32_000,
        hidden_size: 4096,
        intermediate_size: 11_008,
        blocks: 32,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        rms_norm_eps: 1e-6,
        rope: fp8flow_model::Rope { theta: 10_000.0, scaling: RopeScaling::None },
        max_positions: 2048,
        tied: false,
        attention_bias: false,
        mlp_bias: false,
        initializer_range: 0.02,
        eos_token_ids: vec![2],
        raw: config.raw.clone(),
    };
    assert_eq!(config, expected);
}

#[test]
fn null_is_as_good_as_absent_except_for_the_end_token() {
    let config = read(
        r#"{"model_type": "llama", "head_dim": null, "rope_scaling": null, "num_key_value_heads": null,
            "sliding_window": null, "pretraining_tp": null, "eos_token_id": null}"#,
    )
    .unwrap();
    assert_eq!((config.head_dim, config.kv_heads), (128, 32));
    assert!(config.eos_token_ids.is_empty());
}

#[test]
fn both_spellings_say_the_same() {
    let old = read(
        r#"{"model_type": "llama", "rope_theta": 500000.0, "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
            "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#,
    )
    .unwrap();
    let new = read(
        r#"{"model_type": "llama", "dtype": "bfloat16", "max_position_embeddings": 131072,
            "rope_parameters": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 8192, "rope_type": "llama3",
                                "rope_theta": 500000.0}}"#,
    )
    .unwrap();
    assert_eq!(old.rope, new.rope);
    assert_eq!(ModelConfig { raw: new.raw.clone(), ..old }, new);
}

#[test]
fn another_model_is_named_beside_what_is_supported() {
    assert_eq!(
        read(r#"{"model_type": "qwen2"}"#).unwrap_err().to_string(),
        r#"model/config.json: `model_type` = "qwen2" is not supported; "llama" is"#
    );
    assert_eq!(
        read("{}").unwrap_err().to_string(),
        r#"model/config.json: `model_type` is missing; "llama" is supported"#
    );
}

#[test]
fn an_unsupported_feature_is_named_with_its_value() {
    let cases = [
        (json!({"hidden_act": "gelu"}), r#"`hidden_act` = "gelu""#),
        (json!({"pretraining_tp": 2}), "`pretraining_tp` = 2"),
        (json!({"attention_dropout": 0.1}), "`attention_dropout` = 0.1"),
        (json!({"sliding_window": 4096}), "`sliding_window` = 4096"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` = 0.5"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "`architectures` = "),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "`layer_types` = "),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), r#"`rope_scaling.type` = "dynamic""#),
        (json!({"rope_scaling": {"rope_type": "yarn"}}), r#"`rope_scaling.rope_type` = "yarn""#),
        (
            json!({"rope_parameters": {"rope_type": "longrope"}}),
            r#"`rope_parameters.rope_type` = "longrope""#,
        ),
        (json!({"rope_parameters": {"full_attention": {}}}), "`rope_parameters.full_attention` = {}"),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}),
            "`rope_parameters.partial_rotary_factor` = 0.5",
        ),
    ];
    for (keys, named) in cases {
        let message = error(&keys);
        assert!(message.starts_with(&format!("model/config.json: {named}")), "{message}");
        assert!(message.contains("is not supported; "), "{message}");
    }
}

#[test]
fn a_value_that_no_model_can_have_is_named_with_what_was_expected() {
    let size =
        |largest: usize, found: &str| format!("must be a whole number from 1 to {largest}, found {found}");
    let large = i32::MAX as usize;
    let cases = [
        (json!({"hidden_size": "64"}), "hidden_size", size(large, "\"64\"")),
        (json!({"hidden_size": -8}), "hidden_size", size(large, "-8")),
        (json!({"hidden_size": 64.5}), "hidden_size", size(large, "64.5")),
        (json!({"vocab_size": 0}), "vocab_size", size(large, "0")),
        (json!({"vocab_size": 4294967296_u64}), "vocab_size", size(large, "4294967296")),
        (json!({"intermediate_size": 0}), "intermediate_size", size(large, "0")),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers", size(10_000, "0")),
        (json!({"num_hidden_layers": 1000000}), "num_hidden_layers", size(10_000, "1000000")),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings", size(large, "0")),
        (
            json!({"num_attention_heads": 30}),
            "num_attention_heads",
            "= 30 does not divide hidden_size = 4096".into(),
        ),
        (
            json!({"num_key_value_heads": 5}),
            "num_key_value_heads",
            "= 5 does not divide num_attention_heads = 32".into(),
        ),
        (json!({"head_dim": 65}), "head_dim", "is 65, and rotary embedding needs an even one".into()),
        (
            json!({"rms_norm_eps": "1e-5"}),
            "rms_norm_eps",
            "must be a number from 0.0 to 1.0, found \"1e-5\"".into(),
        ),
        (json!({"tie_word_embeddings": 1}), "tie_word_embeddings", "must be true or false, found 1".into()),
        (
            json!({"eos_token_id": [2, -1]}),
            "eos_token_id",
            "must be a token's number or a list of them, found -1".into(),
        ),
        (
            json!({"rope_theta": 0}),
            "rope_theta",
            "must be a number from 1e-6 to 1000000000000.0, found 0".into(),
        ),
        (json!({"rope_scaling": "linear"}), "rope_scaling", "must be an object, found \"linear\"".into()),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor", "is missing".into()),
        (
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}}),
            "rope_parameters.high_freq_factor",
            "= 1 must be above low_freq_factor = 4".into(),
        ),
    ];
    for (keys, key, problem) in cases {
        assert_eq!(error(&keys), format!("model/config.json: `{key}` {problem}"));
    }
}

#[test]
fn sizes_that_together_pass_any_machine_are_refused_without_overflow() {
    let large = i32::MAX;
    let message = error(&json!({
        "hidden_size": large, "num_attention_heads": large, "head_dim": large - 1, "vocab_size": large,
        "intermediate_size": large, "num_hidden_layers": 10000,
    }));
    assert!(message.contains("more than any machine holds"), "{message}");
}

#[test]
fn a_file_that_is_no_json_names_line_and_column() {
    assert_eq!(
        read("{\n  \"model_type\": \"llama\"\n  \"vocab_size\": 3\n}").unwrap_err().to_string(),
        "model/config.json:3:3: expected `,` or `}`"
    );
    assert_eq!(
        read("[1]").unwrap_err().to_string(),
        "model/config.json:1:0: invalid type: sequence, expected a map"
    );
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = ModelConfig::open(folder.path()).unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }));
    let path = folder.path().join("config.json");
    assert!(error.to_string().starts_with(&format!("{}: cannot open: ", path.display())), "{error}");
}

proptest! {
    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        key in prop::sample::select(vec![
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
            "max_position_embeddings", "tie_word_embeddings", "initializer_range", "eos_token_id", "layer_types",
        ]),
        value in prop::sample::select(vec![
            "0", "-1", "1", "2", "3", "64", "1e-320", "1e300", "-1e300", "4294967296", "18446744073709551615", "true",
            "\"x\"", "[]", "[1, 2]", "[[]]", "{}", "{\"type\": 3}", "{\"rope_type\": \"linear\", \"factor\": 1e300}",
            "{\"rope_type\": \"llama3\", \"factor\": 1, \"low_freq_factor\": 0, \"high_freq_factor\": 0}",
        ]),
    ) {
        if let Ok(config) = read(&format!(r#"{{"model_type": "llama", "{key}": {value}}}"#)) {
            prop_assert!(config.inverse_frequencies().iter().all(|f| f.is_finite() && *f > 0.0));
        }
    }
}
