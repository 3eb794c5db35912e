//! The bits of torchao 0.18.0: casts exactly, outputs and gradients within one bf16 unit in the last place (the
//! order of the f32 sums differs).

use crate::common::{Golden, RECIPES, bf16s, bits, golden, here, quantize, recipe_on, transposed};
use fp8flow_sdk::kernels::{Elements, Fp8, bf16};
use fp8flow_sdk::{Pass, ScaleAxis, TensorRef};
use fp8flow_testkit::Layers;
use serde_json::Value;

#[test]
fn every_cast_of_the_golden_is_exact() {
    let Golden { file, x, w, dy } = golden();
    let (k, n) = (x.cols(), dy.cols());
    let wt = transposed(&w, n, k);
    let casts = file["casts"].as_object().unwrap();
    for (name, cast) in casts {
        let [tensor, axis, format] = name.split('_').collect::<Vec<_>>().try_into().unwrap();
        let source = match tensor {
            "x" => x.tensor(),
            "go" => dy.tensor(),
            "w" => TensorRef::new(Elements::F32(&w), &[n, k]),
            "wt" => TensorRef::new(Elements::F32(&wt), &[k, n]),
            other => panic!("unknown tensor {other}"),
        };
        let (axis, power_of_two) = match axis {
            "dim-1" => (ScaleAxis::Row, true),
            "dim0" => (ScaleAxis::Col, true),
            "tensor" => (ScaleAxis::Tensor, false),
            other => panic!("unknown axis {other}"),
        };
        let format = if format == "e5m2" { Fp8::E5m2 } else { Fp8::E4m3 };
        let (codes, scales) = quantize(source, format, axis, power_of_two);
        assert_eq!(scales, bits(&cast["scale_f32_bits"]), "{name}: scales");
        assert_eq!(codes, bits(&cast["fp8_bits_logical_rowmajor"]), "{name}: codes");
    }
    assert_eq!(casts.len(), 9);
}

/// The distance of two bf16 numbers in units in the last place.
fn ulps(a: f32, b: f32) -> u32 {
    let ordered = |x: f32| {
        let bits = i32::from(bf16::from_f32(x).to_bits() as i16);
        if bits < 0 { -(bits & 0x7fff) } else { bits }
    };
    ordered(a).abs_diff(ordered(b))
}

fn assert_within_one_ulp(what: &str, found: &[f32], expected: &Value) {
    let expected = bf16s(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        assert!(ulps(found, expected) <= 1, "{what}[{i}]: {found:e}, torchao has {expected:e}");
    }
}

fn assert_recipe_agrees(recipe: &str, power_of_two: Option<bool>, expected: &Value) {
    let Golden { x, w, dy, .. } = golden();
    let mut layers = Layers::new(recipe_on(&here(), recipe, power_of_two), x.cols(), vec![w]).unwrap();
    let (y, saved) = layers.forward(Pass::Train, &x).unwrap();
    let gradients = layers.gradients(0, &saved, &x, &dy).unwrap();
    assert_within_one_ulp(&format!("{recipe}: y"), &y[0].to_f32(), &expected["y"]);
    assert_within_one_ulp(&format!("{recipe}: dx"), &gradients.dx.unwrap().to_f32(), &expected["grad_x"]);
    assert_within_one_ulp(&format!("{recipe}: dW"), &gradients.dw, &expected["grad_w"]);
}

#[test]
fn outputs_and_gradients_of_every_recipe_agree_within_one_ulp() {
    let file = golden().file;
    for recipe in RECIPES {
        assert_recipe_agrees(recipe, None, &file["recipes"][recipe]);
    }
}

#[test]
fn the_rounding_option_does_what_torchaos_field_does() {
    let file: Value = serde_json::from_str(include_str!("data/torchao-inverted-rounding.json")).unwrap();
    for recipe in RECIPES {
        let inverted = recipe == "tensorwise";
        assert_recipe_agrees(recipe, Some(inverted), &file["recipes"][recipe]);
    }
}

#[test]
fn the_goldens_of_the_two_roundings_can_be_told_apart() {
    let file: Value = serde_json::from_str(include_str!("data/torchao-inverted-rounding.json")).unwrap();
    let rounded = golden().file;
    for recipe in RECIPES {
        let far = |key: &str| {
            let (a, b) = (bf16s(&file["recipes"][recipe][key]), bf16s(&rounded["recipes"][recipe][key]));
            a.iter().zip(&b).filter(|&(&a, &b)| ulps(a, b) > 1).count()
        };
        assert!(far("y") > 50 && far("grad_x") > 50, "{recipe}: {} {}", far("y"), far("grad_x"));
    }
}
