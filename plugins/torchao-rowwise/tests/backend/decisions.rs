//! What the backend says before anything runs: recipes, options, decisions, description.

use fp8flow_sdk::{Backend, ErrorKind, LayerFacts, Options, Precision, StateDict};
use serde_json::json;
use torchao_rowwise::TorchaoRowwise;

use crate::common::{RECIPES, here, recipe, recipe_on};

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
fn a_layer_runs_in_fp8_with_a_reason() {
    let decided = |name| {
        let decision = recipe(name).decide(&facts(4096, 1024));
        assert_eq!(decision.precision, Precision::Fp8);
        (decision.reason, decision.fp8_gemms)
    };
    let reason = "rowwise: e4m3 activations, weights and gradients";
    assert_eq!(decided("rowwise"), (reason.into(), [1, 1, 1]));
    let reason = "tensorwise: e4m3 activations and weights, e5m2 gradients";
    assert_eq!(decided("tensorwise"), (reason.into(), [1, 1, 1]));
    let reason = "rowwise_with_gw_hp: e4m3 activations, weights and gradients; \
                  weight gradient in high precision";
    assert_eq!(decided("rowwise_with_gw_hp"), (reason.into(), [1, 1, 0]));
}

#[test]
fn a_layer_that_no_fp8_gemm_takes_stays_in_high_precision() {
    for name in RECIPES {
        for (n, k, reason) in [
            (4096, 1000, "in_features = 1000 is not a positive multiple of 16"),
            (8, 1024, "out_features = 8 is not a positive multiple of 16"),
            (16, 0, "in_features = 0 is not a positive multiple of 16"),
        ] {
            let reason = format!("{reason}, as {name} needs");
            let decision = recipe(name).decide(&facts(n, k));
            assert_eq!((decision.precision, decision.fp8_gemms), (Precision::High, [0; 3]));
            assert_eq!(decision.reason, reason);
            let error = recipe(name).linear(&facts(n, k)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert_eq!(error.message, reason);
        }
    }
}

#[test]
fn every_recipe_has_torchaos_option_with_torchaos_default() {
    let recipes = TorchaoRowwise::recipes();
    assert_eq!(recipes.iter().map(|recipe| &*recipe.name).collect::<Vec<_>>(), RECIPES);
    for recipe in recipes {
        assert_eq!(recipe.options.len(), 1);
        assert_eq!(recipe.options[0].name, "round_scales_to_power_of_2");
        assert_eq!(recipe.options[0].default, json!(recipe.name != "tensorwise"));
    }
}

#[test]
fn an_unknown_recipe_is_answered_with_the_known_ones() {
    let host = here();
    let backend = TorchaoRowwise::start(&host).unwrap();
    let error = backend.recipe(&host, "rowise", &Options::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let expected = "torchao-rowwise has no recipe `rowise`; it has rowwise, tensorwise, rowwise_with_gw_hp";
    assert_eq!(error.to_string(), expected);
    let error = backend.recipe(&host, "rowwise", &Options::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "the engine fills in defaults: {error}");
}

#[test]
fn a_recipe_describes_every_cast() {
    let cast = |format, axis, rule| json!({ "format": format, "axis": axis, "rule": rule });
    assert_eq!(
        recipe("rowwise_with_gw_hp").describe(),
        json!({
            "backend": "torchao-rowwise",
            "recipe": "rowwise_with_gw_hp",
            "options": { "round_scales_to_power_of_2": true },
            "scaling": "dynamic",
            "amax_floor": 1e-12,
            "fprop": { "x": cast("e4m3", "row", "amax_pow2"), "w": cast("e4m3", "row", "amax_pow2") },
            "dgrad": { "dy": cast("e4m3", "row", "amax_pow2"), "w": cast("e4m3", "tensor", "amax_pow2") },
            "wgrad": "high_precision",
            "accumulation": "f32",
            "kernels_numerics_revision": fp8flow_sdk::kernels::NUMERICS_REVISION,
        })
    );
    let tensorwise = recipe("tensorwise").describe();
    assert_eq!(tensorwise["wgrad"]["dy"], cast("e5m2", "tensor", "amax_linear"));
    let mut descriptions: Vec<_> = RECIPES
        .into_iter()
        .flat_map(|name| {
            [true, false].map(|rounded| recipe_on(&here(), name, Some(rounded)).describe().to_string())
        })
        .collect();
    descriptions.sort();
    descriptions.dedup();
    assert_eq!(descriptions.len(), 6, "two recipes that differ never describe themselves alike");
}

#[test]
fn there_is_no_state_to_keep() {
    for name in RECIPES {
        let mut recipe = recipe(name);
        assert_eq!(recipe.state().unwrap(), StateDict::default());
        recipe.restore(&StateDict::default()).unwrap();
    }
}
