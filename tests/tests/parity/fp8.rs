//! FP8 training against torchao's emulation under bf16 autocast, in the bands of the golden's notes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fp8flow_host::{Pool, Search, Services, check_options};
use fp8flow_kernels::Isa;
use fp8flow_sdk::Recipe;
use fp8flow_tensor::DType;
use serde_json::Map;

use crate::golden::{expected, floats, gradients, json, losses, model};

/// Recipe `name` of the plugin as it is loaded from its file.
fn recipe(name: &str) -> Box<dyn Recipe> {
    let pool = Arc::new(Pool::new(2).unwrap());
    let host = Services::new(Isa::best(), pool, Arc::new(AtomicBool::new(false))).host();
    // Cargo puts the library of a dependency beside the tests.
    let beside = PathBuf::from(std::env::current_exe().unwrap().parent().unwrap());
    let plugin = Search::new(&[beside], &[]).find("torchao-rowwise").unwrap().open(&host).unwrap();
    let options = check_options(plugin.recipe_info(name).unwrap(), &Map::new()).unwrap();
    plugin.recipe(name, &options).unwrap()
}

/// 10·log₁₀(Σ y² / Σ (x − y)²).
fn sqnr_db(found: &[f32], exact: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let signal: f64 = exact.iter().map(|&y| square(f64::from(y))).sum();
    let noise: f64 = found.iter().zip(exact).map(|(&x, &y)| square(f64::from(x) - f64::from(y))).sum();
    10.0 * (signal / noise).log10()
}

#[test]
fn gradients_at_the_first_step_are_as_noisy_as_torchaos() {
    let exact = expected();
    let golden = json("expected_fp8.json");
    for name in ["rowwise", "tensorwise"] {
        let (gradients, _) = gradients(&mut model(DType::Bf16, false, Some(recipe(name))));
        let mut differences = Vec::new();
        for (spec, gradient) in gradients.iter() {
            let found = sqnr_db(gradient.f32(), &floats(&exact, &format!("grad.{}", spec.name)));
            let expected = golden[name]["grad_sqnr_db"][&spec.name].as_f64().unwrap();
            differences.push(found - expected);
        }
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        println!("{name}: {mean:+.2} dB in the mean over {} parameters", differences.len());
        assert!(mean.abs() <= 1.5, "{name}: {mean} dB: {differences:?}");
    }
}

#[test]
fn eleven_losses_stay_in_torchaos_bands() {
    let golden = json("expected_fp8.json");
    for name in ["rowwise", "tensorwise"] {
        let expected: Vec<f64> =
            golden[name]["losses"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let found = losses(model(DType::Bf16, false, Some(recipe(name))));
        let errors: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let largest = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
        println!("{name}: first {:.4}, mean {mean:.4}, largest {:.4}", errors[0], largest(&errors));
        assert_eq!(errors.len(), 11);
        assert!(errors[0] <= 0.006, "{name}: {errors:?}");
        assert!(largest(&errors[..5]) <= 0.012, "{name}: {errors:?}");
        assert!(mean <= 0.012 && largest(&errors) <= 0.03, "{name}: {errors:?}");
    }
}
