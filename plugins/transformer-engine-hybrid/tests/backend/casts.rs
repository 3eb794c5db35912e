//! Transformer Engine's casts: saturating, to nearest even, from the tensor's own type, with the scale that is there.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::{Event, Pass};
use fp8flow_testkit::{Activations, Values};
use serde_json::json;

use crate::common::{f32s, identity, layers, nearest};

/// Input and code under a scale of 1 (specification §1.10).
const E4M3: [(f32, u8); 14] = [
    (448.0, 0x7e),
    (449.0, 0x7e),
    (1e9, 0x7e),
    (f32::INFINITY, 0x7e),
    (f32::NAN, 0x7f),
    (-1.0, 0xb8),
    (0.02, 0x0a),
    (1.0 / 512.0, 0x01),
    (1.0 / 1024.0, 0x00),
    (1.0001 / 1024.0, 0x01),
    (3.0 / 1024.0, 0x02),
    (17.0, 0x58),
    (19.0, 0x5a),
    (-f32::INFINITY, 0xfe),
];
const E5M2: [(f32, u8); 10] = [
    (57344.0, 0x7b),
    (61440.0, 0x7b),
    (f32::INFINITY, 0x7b),
    (1.0 / 65536.0, 0x01),
    (1.0 / 131_072.0, 0x00),
    (1.01 / 131_072.0, 0x01),
    (1.125, 0x3c),
    (1.375, 0x3e),
    (1e-5, 0x01),
    (7e-6, 0x00),
];

/// A row with `x` in front and nothing else.
fn row(x: f32) -> Vec<f32> {
    let mut row = vec![0.0; 16];
    row[0] = x;
    row
}

#[test]
fn inputs_are_cast_to_e4m3_as_the_goldens_say() {
    let mut layers = layers("delayed", &json!({}), 16, vec![identity(16)]);
    for (x, code) in E4M3 {
        let (y, _) = layers.forward(Pass::Eval, &f32s(16, &row(x))).unwrap();
        let (found, expected) = (y[0].to_f32()[0], Fp8::E4m3.decode(code));
        assert!(found == expected || (found.is_nan() && expected.is_nan()), "{x:e}: {found}, not {expected}");
    }
}

#[test]
fn gradients_are_cast_to_e5m2_as_the_goldens_say() {
    for (dy, code) in E5M2 {
        let mut layers = layers("delayed", &json!({}), 16, vec![identity(16)]);
        let x = f32s(16, &row(1.0));
        let (_, saved) = layers.forward(Pass::Train, &x).unwrap();
        layers.on(Event::ForwardDone).unwrap();
        let gradients = layers.gradients(0, &saved, &x, &f32s(16, &row(dy))).unwrap();
        assert_eq!(gradients.dx.unwrap().to_f32()[0], Fp8::E5m2.decode(code), "{dy:e}");
    }
}

#[test]
fn with_the_format_e4m3_gradients_are_e4m3_too() {
    let mut layers = layers("delayed", &json!({ "format": "E4M3" }), 16, vec![identity(16)]);
    let x = f32s(16, &row(1.0));
    let (_, saved) = layers.forward(Pass::Train, &x).unwrap();
    layers.on(Event::ForwardDone).unwrap();
    let gradients = layers.gradients(0, &saved, &x, &f32s(16, &row(1.0625))).unwrap();
    assert_eq!(gradients.dx.unwrap().to_f32()[0], 1.0, "e4m3 has steps of 0.125 there, a tie goes to even");
}

/// An f32 tensor is not rounded to bf16 before its cast.
#[test]
fn a_tensor_is_cast_from_its_own_type() {
    // Just above the tie between 1 and 1.125: rounding to bf16 first would make it a tie, and that would go to 1.
    let x = 1.0625 + 1.0 / 4096.0;
    let mut layers = layers("delayed", &json!({}), 16, vec![identity(16)]);
    let (y, _) = layers.forward(Pass::Eval, &f32s(16, &row(x))).unwrap();
    assert_eq!(y[0].to_f32()[0], 1.125);
    let rounded = Values::new(Activations::Bf16, 1, 16, &row(x));
    let (y, _) = layers.forward(Pass::Eval, &rounded).unwrap();
    assert_eq!(y[0].to_f32()[0], 1.0);
}

#[test]
fn the_nearest_number_by_looking_at_all_is_what_the_codec_gives() {
    for format in [Fp8::E4m3, Fp8::E5m2] {
        for i in 0..40_000_u32 {
            let x = f32::from_bits(i.wrapping_mul(107_374) & 0x7f7f_ffff);
            assert_eq!(nearest(format, f64::from(x)), f64::from(format.decode(format.encode(x))), "{x:e}");
        }
    }
}
