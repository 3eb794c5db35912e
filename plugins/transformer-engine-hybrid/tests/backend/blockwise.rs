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

/// bf16 numbers are f32 numbers: the same codes, the same sums, rounded once more where the result is bf16.
#[test]
fn bf16_activations_give_the_same_codes() {
    let bf16 = |x: f32| fp8flow_sdk::kernels::bf16::from_f32(x).to_f32();
    for (n, k, tokens) in [(128, 128, 16), (640, 256, 512), (256, 640, 500)] {
        let weight = normal(n * k, 0.02, 7);
        let x = Values::new(Activations::Bf16, tokens, k, &uneven(tokens, k, 1.0, 1));
        let dy = Values::new(Activations::Bf16, tokens, n, &uneven(tokens, n, 1e-3, 2));
        let run = |as_type: Activations| {
            let mut layers = layers("blockwise", &json!({}), k, vec![weight.clone()]);
            let x = Values::new(as_type, tokens, k, &x.to_f32());
            let dy = Values::new(as_type, tokens, n, &dy.to_f32());
            let step = layers.step(&x, &[dy]).unwrap();
            let dx = step.gradients[0].dx.as_ref().unwrap().to_f32();
            (step.outputs[0].to_f32(), dx, step.gradients[0].dw.clone())
        };
        let (y, dx, dw) = run(Activations::Bf16);
        let (exact_y, exact_dx, exact_dw) = run(Activations::F32);
        assert_eq!(dw, exact_dw);
        assert!(y.into_iter().eq(exact_y.into_iter().map(bf16)), "y of {n}×{k}, {tokens} tokens");
        assert!(dx.into_iter().eq(exact_dx.into_iter().map(bf16)), "dx of {n}×{k}, {tokens} tokens");
    }
}
