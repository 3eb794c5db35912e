//! Scales for blocks: 1×128 of inputs and gradients, 128×128 of weights, powers of two.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_testkit::{Activations, Values, normal};
use serde_json::json;

use crate::common::{amax, assert_product, cast, layers, transposed};

const BLOCK: usize = 128;

/// Every element of `x` as its cast with one scale for each block of `rows × cols`, e4m3.
fn cast_blocks(x: &[f32], width: usize, rows: usize, cols: usize) -> Vec<f64> {
    let height = x.len() / width;
    let mut out = vec![0.0; x.len()];
    for top in (0..height).step_by(rows) {
        for left in (0..width).step_by(cols) {
            let at: Vec<usize> = (top..height.min(top + rows))
                .flat_map(|i| (left..width.min(left + cols)).map(move |j| i * width + j))
                .collect();
            let amax = amax(&at.iter().map(|&i| x[i]).collect::<Vec<_>>());
            let scale = if amax == 0.0 { 1.0 } else { 2_f32.powi((448.0 / amax).log2().floor() as i32) };
            for i in at {
                out[i] = cast(Fp8::E4m3, x[i], scale);
            }
        }
    }
    out
}

/// Columns and rows of very different size, so that a wrong block would be far off.
fn uneven(rows: usize, cols: usize, deviation: f32, seed: u64) -> Vec<f32> {
    let mut x = normal(rows * cols, deviation, seed);
    for (i, x) in x.iter_mut().enumerate() {
        *x *= 2_f32.powi((i / cols / 40 % 7) as i32 * 3 - 9) * 4_f32.powi((i % cols / 128) as i32);
    }
    x
}

#[test]
fn products_are_those_of_the_cast_blocks_for_any_number_of_tokens() {
    for (n, k, tokens) in [
        (256, 384, 1),
        (256, 384, 127),
        (256, 384, 128),
        (256, 384, 129),
        (128, 256, 512),
        (640, 256, 300),
        (256, 640, 512),
    ] {
        let mut layers = layers("blockwise", &json!({}), k, vec![uneven(n, k, 0.02, 7)]);
        let x = Values::new(Activations::F32, tokens, k, &uneven(tokens, k, 1.0, 1));
        let dy = Values::new(Activations::F32, tokens, n, &uneven(tokens, n, 1e-3, 2));
        let step = layers.step(&x, std::slice::from_ref(&dy)).unwrap();
        let (xs, dys) = (x.to_f32(), dy.to_f32());
        let qw = cast_blocks(layers.weight(0), k, BLOCK, BLOCK);
        assert_product(&step.outputs[0].to_f32(), &cast_blocks(&xs, k, 1, BLOCK), &qw, [tokens, n, k], "y");
        let gradients = &step.gradients[0];
        let dx = gradients.dx.as_ref().unwrap().to_f32();
        assert_product(&dx, &cast_blocks(&dys, n, 1, BLOCK), &transposed(&qw, n, k), [tokens, k, n], "dx");
        let a = transposed(&cast_blocks(&dys, n, BLOCK, 1), tokens, n);
        let b = transposed(&cast_blocks(&xs, k, BLOCK, 1), tokens, k);
        assert_product(&gradients.dw, &a, &b, [n, k, tokens], "dw");
    }
}

#[test]
fn bf16_activations_give_the_same_codes() {
    let (n, k, tokens) = (128, 128, 16);
    let mut layers = layers("blockwise", &json!({}), k, vec![normal(n * k, 0.02, 7)]);
    let bf16 = Values::normal(Activations::Bf16, tokens, k, 1.0, 1);
    let f32 = Values::new(Activations::F32, tokens, k, &bf16.to_f32());
    let y = |layers: &mut fp8flow_testkit::Layers, x| {
        layers.forward(fp8flow_sdk::Pass::Eval, x).unwrap().0[0].to_f32()
    };
    let (from_bf16, from_f32) = (y(&mut layers, &bf16), y(&mut layers, &f32));
    for (a, b) in from_bf16.into_iter().zip(from_f32) {
        assert_eq!(a, fp8flow_sdk::kernels::bf16::from_f32(b).to_f32());
    }
}
