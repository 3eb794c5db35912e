//! What the backend says before anything runs: recipes, options, decisions, description.

use fp8flow_sdk::{Backend, ErrorKind, LayerFacts, Options, Precision, StateDict};
use serde_json::{Value, json};
use transformer_engine_hybrid::TransformerEngineHybrid;

use crate::common::{here, recipe_on};

fn facts(out_features: usize, in_features: usize) -> LayerFacts {
    LayerFacts {
        device: None,
        name: "model.layers.0.mlp.up_proj".into(),
        in_features,
        out_features,
        tokens: None,
        block: Some(0),
        group: Vec::new(),
    }
}

#[test]
fn the_defaults_are_those_of_the_reference_recipe() {
    let recipes = TransformerEngineHybrid::recipes();
    let defaults = |name: &str| -> Value {
        let recipe = recipes.iter().find(|recipe| recipe.name == name).unwrap();
        recipe.options.iter().map(|option| (option.name.clone(), option.default.clone())).collect()
    };
    let expected = json!({
        "amax_history_len": 16, "amax_compute_algo": "max", "margin": 0, "format": "HYBRID",
        "reduce_amax": true, "warm_start": false,
    });
    assert_eq!(defaults("delayed"), expected);
    assert_eq!(defaults("current"), json!({ "format": "HYBRID", "power_2_scale": false }));
    assert_eq!(defaults("blockwise"), json!({}));
    assert_eq!(recipes.len(), 3);
}

#[test]
fn a_layer_runs_in_fp8_with_a_reason() {
    for (name, options, reason) in [
        ("delayed", json!({}), "delayed: e4m3 activations and weights, e5m2 gradients"),
        ("current", json!({}), "current: e4m3 activations and weights, e5m2 gradients"),
        ("current", json!({ "format": "E4M3" }), "current: e4m3 activations, weights and gradients"),
        ("blockwise", json!({}), "blockwise: e4m3 activations, weights and gradients"),
    ] {
        let decision = recipe_on(&here(), name, &options).decide(&facts(4096, 1024));
        assert_eq!((decision.precision, decision.fp8_gemms), (Precision::Fp8, [1, 1, 1]));
        assert_eq!(decision.reason, reason);
    }
}

#[test]
fn a_layer_that_no_fp8_gemm_takes_stays_in_high_precision() {
    for (name, n, k, reason) in [
        ("delayed", 4096, 1000, "in_features = 1000 is not a positive multiple of 16, as delayed needs"),
        ("current", 8, 1024, "out_features = 8 is not a positive multiple of 16, as current needs"),
        ("blockwise", 4096, 1008, "in_features = 1008 is not a positive multiple of 128, as blockwise needs"),
        ("blockwise", 0, 1024, "out_features = 0 is not a positive multiple of 128, as blockwise needs"),
    ] {
        let mut recipe = recipe_on(&here(), name, &json!({}));
        let decision = recipe.decide(&facts(n, k));
        assert_eq!((decision.precision, decision.fp8_gemms), (Precision::High, [0; 3]));
        assert_eq!(decision.reason, reason);
        let error = recipe.linear(&facts(n, k)).map(|_| ()).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, reason));
    }
}

#[test]
fn every_option_changes_the_description() {
    let describe = |name: &str, options: Value| recipe_on(&here(), name, &options).describe();
    let plain = describe("delayed", json!({}));
    for (option, value) in [
        ("amax_history_len", json!(4)),
        ("amax_compute_algo", json!("most_recent")),
        ("margin", json!(2)),
        ("format", json!("E4M3")),
        ("reduce_amax", json!(false)),
        ("warm_start", json!(true)),
    ] {
        assert_ne!(describe("delayed", json!({ option: value })), plain, "{option}");
    }
    assert_eq!(plain["dgrad"]["dy"], json!({ "format": "e5m2", "axis": "tensor", "rule": "delayed" }));
    let blockwise = describe("blockwise", json!({}));
    assert_eq!(blockwise["fprop"]["w"]["axis"], json!([128, 128]));
    assert_eq!(blockwise["wgrad"]["x"]["axis"], json!([128, 1]));
}

#[test]
fn an_unknown_recipe_and_state_for_a_recipe_without_are_errors() {
    let backend = TransformerEngineHybrid::start(&here()).unwrap();
    let error = backend.recipe(&here(), "mxfp8", &Options::default()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no recipe `mxfp8`"), "{error}");
    let some = StateDict(
        [(
            "x.scale".into(),
            fp8flow_sdk::StateTensor { dtype: fp8flow_sdk::DType::F32, shape: vec![1], bytes: vec![0; 4] },
        )]
        .into(),
    );
    for name in ["current", "blockwise"] {
        let mut recipe = recipe_on(&here(), name, &json!({}));
        assert!(recipe.state().unwrap().0.is_empty());
        assert!(recipe.restore(&some).is_err());
    }
}
