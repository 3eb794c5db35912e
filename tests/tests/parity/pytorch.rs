//! f32 against PyTorch's f32.

use fp8flow_data::MicroBatch;
use fp8flow_model::Batch;
use fp8flow_tensor::DType;

use crate::golden::{device, expected, floats, gradients, json, losses, model, tokens};

/// Asserts that two tensors agree within 1e-4 of the largest expected element; returns the largest share.
fn assert_close(name: &str, found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
    assert!(worst <= 1e-4 * largest, "{name}: {worst:e} of {largest:e}");
    worst / largest
}

#[test]
fn logits_agree() {
    let mut model = model(DType::F32, false, None);
    let set = tokens(&model.config);
    let micro = MicroBatch::new(&set, &[0, 1, 2]);
    let batch = Batch { ids: &micro.ids, targets: &micro.targets, sequences: &micro.sequences };
    let device = device();
    let logits = model.decoder.logits(&device, &model.parameters, batch).unwrap();
    let worst = assert_close("logits", logits.f32(), &floats(&expected(), "logits"));
    println!("logits: within {worst:.1e} of the largest");
}

#[test]
fn every_gradient_agrees_with_and_without_recompute() {
    let expected = expected();
    for recompute in [false, true] {
        let (gradients, loss) = gradients(&mut model(DType::F32, recompute, None));
        let golden = json("expected.json")["loss"].as_f64().unwrap();
        assert!((loss - golden).abs() < 1e-5 * golden, "{loss} for {golden}");
        let mut worst = 0.0_f32;
        for (spec, gradient) in gradients.iter() {
            let name = format!("grad.{}", spec.name);
            worst = worst.max(assert_close(&name, gradient.f32(), &floats(&expected, &name)));
        }
        println!("gradients (recompute {recompute}): within {worst:.1e} of the largest");
    }
}

#[test]
fn eleven_losses_under_adamw_agree_within_a_hundred_thousandth() {
    let golden = json("expected.json");
    let golden: Vec<f64> = golden["adamw"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let found = losses(model(DType::F32, false, None));
    assert_eq!(found.len(), golden.len());
    let worst = found.iter().zip(&golden).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    println!("losses: within {worst:.1e}");
    assert!(worst <= 1e-5, "{found:?}\n{golden:?}");
}
