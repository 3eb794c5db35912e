//! How far results are from exact ones, and what must not matter.

use fp8flow_sdk::Event;

use super::{Found, ensure};
use crate::driver::{Failure, Gradients, Layers, Step};
use crate::reference::{Reference, snr_db};
use crate::subject::{K, NS, Subject, input, output_gradients, weight};
use crate::values::Activations::{self, Bf16, F32};
use crate::values::{Values, normal};

/// Signal-to-noise in dB of a product of two FP8 operands on normal data. Two e4m3 give 28.5, e4m3 with e5m2 24.6,
/// two e5m2 22.5. Below, something is wrong; above, it was not FP8.
const FP8: (f64, f64) = (20.0, 36.0);

/// A product in high precision, stored as f32.
const HIGH: (f64, f64) = (50.0, f64::INFINITY);

/// What scales are made from may lie in the past: two steps fill any history of this data's magnitude.
const WARM_UP: u64 = 2;

fn warmed_up(subject: &Subject<'_>, dtype: Activations) -> Result<Layers, Failure> {
    let mut layers = subject.group()?;
    for i in 0..WARM_UP {
        layers.step(&input(dtype, 64, i), &output_gradients(dtype, 64, i))?;
    }
    Ok(layers)
}

fn measure(layers: &Layers, i: usize, step: &Step, x: &Values, dy: &Values) -> [f64; 3] {
    let exact = Reference::new(&x.to_f32(), layers.weight(i), &dy.to_f32(), K);
    let Gradients { dx, dw, .. } = &step.gradients[i];
    let dx = dx.as_ref().map_or_else(Vec::new, Values::to_f32);
    [snr_db(&exact.y, &step.outputs[i].to_f32()), snr_db(&exact.dx, &dx), snr_db(&exact.dw, dw)]
}

/// Output and gradients lie in the band of the precision that was decided.
pub(crate) fn noise_is_that_of_the_precision(subject: &Subject<'_>) -> Found {
    let mut layers = warmed_up(subject, F32)?;
    let (x, dys) = (input(F32, 64, 9), output_gradients(F32, 64, 9));
    let step = layers.step(&x, &dys)?;
    let mut shown = String::new();
    for (i, dy) in dys.iter().enumerate() {
        let found = measure(&layers, i, &step, &x, dy);
        for ((product, found), fp8) in ["y", "dx", "dW"].iter().zip(found).zip(layers.decision(i).fp8_gemms) {
            let (low, high) = if fp8 == 1 { FP8 } else { HIGH };
            ensure!(
                low <= found && found <= high,
                "layer {i}: {product} at {found:.1} dB, expected {low} to {high}"
            );
        }
        shown = format!("y {:.1}, dx {:.1}, dW {:.1} dB", found[0], found[1], found[2]);
    }
    Ok(shown)
}

/// After the event, the new weights count, forward and backward.
pub(crate) fn changed_weights_are_used(subject: &Subject<'_>) -> Found {
    let mut layers = warmed_up(subject, Bf16)?;
    for (i, n) in NS.into_iter().enumerate() {
        layers.weight_mut(i).copy_from_slice(&normal(n * K, 0.02, 900 + i as u64));
    }
    layers.on(Event::WeightsChanged)?;
    let (x, dys) = (input(Bf16, 64, 9), output_gradients(Bf16, 64, 9));
    let step = layers.step(&x, &dys)?;
    for (i, dy) in dys.iter().enumerate() {
        ensure!(layers.weight(i) != weight(i), "layer {i}: the weight is as before");
        let [y, dx, _] = measure(&layers, i, &step, &x, dy);
        ensure!(y >= FP8.0 && dx >= FP8.0, "layer {i}: y at {y:.1} dB, dx at {dx:.1} dB of the new weight");
    }
    Ok(format!("{} layers", dys.len()))
}

/// Rows of zeros below the tokens change no other row and no gradient; no tokens at all give no gradient.
pub(crate) fn zero_rows_change_nothing(subject: &Subject<'_>) -> Found {
    for tokens in [1, 7, 17] {
        let rows = tokens + 15;
        let padded = |values: &Values| {
            let mut numbers = values.to_f32();
            numbers.resize(rows * values.cols(), 0.0);
            Values::new(Bf16, rows, values.cols(), &numbers)
        };
        let (x, dys) = (input(Bf16, tokens, 0), output_gradients(Bf16, tokens, 0));
        let plain = subject.group()?.step(&x, &dys)?;
        let below: Vec<_> = dys.iter().map(padded).collect();
        let found = subject.group()?.step(&padded(&x), &below)?;
        for i in 0..NS.len() {
            let (y, padded_y) = (plain.outputs[i].bytes(), found.outputs[i].bytes());
            ensure!(y == &padded_y[..y.len()], "layer {i}, {tokens} tokens: zero rows changed y");
            let (dw, padded_dw) = (&plain.gradients[i].dw, &found.gradients[i].dw);
            ensure!(dw == padded_dw, "layer {i}, {tokens} tokens: zero rows changed dW");
        }
    }
    let (x, dys) = (input(Bf16, 0, 0), output_gradients(Bf16, 0, 0));
    let mut layers = subject.group()?;
    let nothing = layers.step(&x, &dys)?;
    let zero = nothing.gradients.iter().all(|gradients| gradients.dw.iter().all(|&dw| dw == 0.0));
    ensure!(zero, "without tokens dW is not zero");
    accumulation_adds(subject)?;
    Ok("1, 7, 17 and 0 tokens".into())
}

fn accumulation_adds(subject: &Subject<'_>) -> Result<(), Failure> {
    for tokens in [0, 16] {
        let mut layers = subject.group()?;
        let (x, dys) = (input(Bf16, tokens, 0), output_gradients(Bf16, tokens, 0));
        let (_, saved) = layers.forward(fp8flow_sdk::Pass::Train, &x)?;
        let alone = layers.gradients(0, &saved, &x, &dys[0])?;
        let old = normal(alone.dw.len(), 1e-2, 7);
        let mut sum = Gradients { dx: None, dw: old.clone(), accumulate_dx: false, accumulate_dw: true };
        layers.backward(0, &saved, &x, &dys[0], &mut sum)?;
        for ((old, new), sum) in old.iter().zip(&alone.dw).zip(&sum.dw) {
            let off = (old + new - sum).abs();
            ensure!(
                off <= 1e-6 * (old.abs() + new.abs()),
                "{tokens} tokens: {old:e} + {new:e} became {sum:e}"
            );
        }
    }
    Ok(())
}
