//! Current scaling: a scale from the tensor itself, whatever it holds.

use fp8flow_sdk::Pass;
use fp8flow_sdk::kernels::Fp8;
use fp8flow_testkit::{Activations, Values, normal};
use serde_json::json;

use crate::common::{amax, assert_product, cast, f32s, identity, layers, transposed};

const M: usize = 20;
const K: usize = 48;
const N: usize = 32;

/// Transformer Engine's `compute_scale_from_amax`, in words of our own.
fn scale(values: &[f32], format: Fp8, power_of_two: bool) -> f32 {
    let amax = amax(values);
    if amax == 0.0 || !amax.is_finite() {
        return 1.0;
    }
    let scale = (format.max() / amax).min(f32::MAX);
    if power_of_two { 2_f32.powi(scale.log2().floor() as i32) } else { scale }
}

#[test]
fn products_are_those_of_the_cast_tensors() {
    for power_of_two in [false, true] {
        for (format, gradient) in [("HYBRID", Fp8::E5m2), ("E4M3", Fp8::E4m3)] {
            let options = json!({ "power_2_scale": power_of_two, "format": format });
            let mut layers = layers("current", &options, K, vec![normal(N * K, 0.02, 7)]);
            for (seed, deviation) in [(1, 1.0), (2, 1e-12), (3, 1e12)] {
                let x = Values::normal(Activations::F32, M, K, deviation, seed);
                let dy = Values::normal(Activations::F32, M, N, 1e-3, seed + 10);
                let step = layers.step(&x, std::slice::from_ref(&dy)).unwrap();
                let cast = |values: &[f32], format| -> Vec<f64> {
                    let scale = scale(values, format, power_of_two);
                    values.iter().map(|&x| cast(format, x, scale)).collect()
                };
                let (qx, qw) = (cast(&x.to_f32(), Fp8::E4m3), cast(layers.weight(0), Fp8::E4m3));
                let qdy = cast(&dy.to_f32(), gradient);
                let gradients = &step.gradients[0];
                let dx = gradients.dx.as_ref().unwrap().to_f32();
                assert_product(&step.outputs[0].to_f32(), &qx, &qw, [M, N, K], "y");
                assert_product(&dx, &qdy, &transposed(&qw, N, K), [M, K, N], "dx");
                let (a, b) = (transposed(&qdy, M, N), transposed(&qx, M, K));
                assert_product(&gradients.dw, &a, &b, [N, K, M], "dw");
            }
        }
    }
}

/// But for the factors 1 and 1/448, whose product with 448 is 1 up to rounding.
fn close(x: f32, y: f32) -> bool {
    (x - y).abs() <= 1e-6 * y.abs()
}

#[test]
fn a_tensor_of_zeros_or_with_an_infinity_has_a_scale_of_one() {
    let mut layers = layers("current", &json!({}), 16, vec![identity(16)]);
    let mut row = vec![0.3; 16];
    row[7] = f32::INFINITY;
    let (y, _) = layers.forward(Pass::Eval, &f32s(16, &row)).unwrap();
    let y = y[0].to_f32();
    assert!(close(y[0], 0.3125), "{}, not the nearest number of e4m3, unscaled", y[0]);
    assert!(close(y[7], 448.0), "{}: casts saturate", y[7]);
    let (y, _) = layers.forward(Pass::Eval, &f32s(16, &[0.0; 16])).unwrap();
    assert!(y[0].to_f32().iter().all(|&y| y == 0.0));
}

#[test]
fn a_maximum_passes_over_nan() {
    let mut layers = layers("current", &json!({}), 16, vec![identity(16)]);
    let mut row = vec![0.0; 16];
    (row[0], row[1]) = (f32::NAN, 2.0);
    let (y, _) = layers.forward(Pass::Eval, &f32s(16, &[row, vec![1.0; 16]].concat())).unwrap();
    let y = y[0].to_f32();
    assert!(y[..16].iter().all(|y| y.is_nan()), "a NaN reaches its row of the output");
    assert!(y[16..].iter().all(|&y| close(y, 1.0)), "and no other: {:?}", &y[16..]);
}
