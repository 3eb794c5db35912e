//! How far results are from exact ones, and what must not matter.

use fp8flow_sdk::Event;

use super::{Found, ensure};
use crate::driver::Layers;
use crate::elsewhere::{agree, agree_in_numbers, apart, largest};
use crate::failure::Failure;
use crate::reference::{Reference, snr_db};
use crate::step::{Gradients, Step};
use crate::subject::{K, NS, Subject, input, output_gradients, weight};
use crate::values::Activations::{self, Bf16, F32};
use crate::values::{Values, normal};

/// Signal-to-noise in dB of a product of two FP8 operands on normal data. Two e4m3 give 28.5, e4m3 with e5m2 24.6,
/// two e5m2 22.5. Below, something is wrong; above, it was not FP8.
pub(super) const FP8: (f64, f64) = (20.0, 36.0);

/// A product in high precision, stored as f32.
pub(super) const HIGH: (f64, f64) = (50.0, f64::INFINITY);

/// What scales are made from may lie in the past: two steps fill any history of this data's magnitude.
const WARM_UP: u64 = 2;

fn warmed_up(subject: &Subject<'_>, dtype: Activations) -> Result<Layers, Failure> {
    let mut layers = subject.group()?;
    for i in 0..WARM_UP {
        layers.step(&input(dtype, 64, i), &output_gradients(dtype, 64, i))?;
    }
    Ok(layers)
}

pub(super) fn measure(layers: &Layers, i: usize, step: &Step, x: &Values, dy: &Values) -> [f64; 3] {
    let exact = Reference::new(&x.to_f32(), &layers.dense_weight(i), &dy.to_f32(), x.cols());
    let Gradients { dx, dw, .. } = &step.gradients[i];
    let dx = dx.as_ref().map_or_else(Vec::new, Values::to_f32);
    [snr_db(&exact.y, &step.outputs[i].to_f32()), snr_db(&exact.dx, &dx), snr_db(&exact.dw, dw)]
}

/// Factors of rows and of columns, so that a scale undone along the wrong one shows. All are powers of two, and all
/// products lie well within the normal numbers of either format.
const ROWS: [f32; 5] = [1.0, 0.25, 2.0, 0.5, 4.0];
const COLUMNS: [f32; 3] = [1.0, 2.0, 0.5];

pub(super) fn uneven(numbers: &mut [f32], cols: usize) {
    for (i, row) in numbers.chunks_mut(cols).enumerate() {
        row.iter_mut()
            .zip(COLUMNS.iter().cycle())
            .for_each(|(x, factor)| *x *= ROWS[i % ROWS.len()] * factor);
    }
}

pub(super) fn uneven_values(values: &Values) -> Values {
    let mut numbers = values.to_f32();
    uneven(&mut numbers, values.cols());
    Values::new(values.dtype(), values.rows(), values.cols(), &numbers)
}

/// Every product of a step in the band of the precision that was decided; the worst of each, in words.
fn in_band(layers: &Layers, step: &Step, x: &Values, dys: &[Values], advice: &str) -> Found {
    let mut worst = [f64::INFINITY; 3];
    for (i, dy) in dys.iter().enumerate() {
        let found = measure(layers, i, step, x, dy);
        for (j, product) in ["y", "dx", "dW"].into_iter().enumerate() {
            let (found, fp8) = (found[j], layers.decision(i).fp8_gemms[j] == 1);
            let (low, high) = if fp8 { FP8 } else { HIGH };
            ensure!(found >= low, "layer {i}: {product} at {found:.1} dB, at least {low} are due: {advice}");
            ensure!(
                found <= high,
                "layer {i}: {product} at {found:.1} dB is more exact than FP8 can be ({high} dB at most): cast both \
                 operands, or decide the GEMM as high precision"
            );
            worst[j] = worst[j].min(found);
        }
    }
    Ok(format!("y {:.1}, dx {:.1}, dW {:.1} dB", worst[0], worst[1], worst[2]))
}

/// Output and gradients of a group whose tensors are uneven lie in the band of the precision that was decided.
pub(crate) fn noise_is_that_of_the_precision(subject: &Subject<'_>) -> Found {
    let mut layers = subject.group()?;
    for i in 0..NS.len() {
        uneven(layers.weight_mut(i), K);
    }
    let data = |seed| {
        let dys: Vec<_> = output_gradients(F32, 64, seed).iter().map(uneven_values).collect();
        (uneven_values(&input(F32, 64, seed)), dys)
    };
    for i in 0..WARM_UP {
        let (x, dys) = data(i);
        layers.step(&x, &dys)?;
    }
    let (x, dys) = data(9);
    let step = layers.step(&x, &dys)?;
    in_band(&layers, &step, &x, &dys, "look at which scales are undone along which axis of which operand")
}

/// All of a tensor times sixteen gives results times sixteen, to the bit.
pub(crate) fn a_common_factor_comes_through(subject: &Subject<'_>) -> Found {
    const FACTOR: f32 = 16.0;
    let run = |factors: [f32; 3]| -> Result<Step, Failure> {
        let [of_x, of_w, of_dy] = factors;
        let mut layers = subject.group()?;
        for i in 0..NS.len() {
            layers.weight_mut(i).iter_mut().for_each(|w| *w *= of_w);
        }
        let scaled = |values: &Values, factor| {
            let numbers: Vec<_> = values.to_f32().iter().map(|x| x * factor).collect();
            Values::new(F32, values.rows(), values.cols(), &numbers)
        };
        let mut step = |seed| {
            let dys: Vec<_> = output_gradients(F32, 16, seed).iter().map(|dy| scaled(dy, of_dy)).collect();
            layers.step(&scaled(&input(F32, 16, seed), of_x), &dys)
        };
        for i in 0..WARM_UP {
            step(i)?;
        }
        step(9)
    };
    let plain = run([1.0; 3])?;
    // What each of x, W and dy is a factor of: y, dx, dW.
    let parts = [("x", [true, false, true]), ("W", [true, true, false]), ("dy", [false, true, true])];
    for (which, (tensor, takes_part)) in parts.into_iter().enumerate() {
        let mut factors = [1.0; 3];
        factors[which] = FACTOR;
        let found = run(factors)?;
        for i in 0..NS.len() {
            let of = |step: &Step| {
                let Gradients { dx, dw, .. } = &step.gradients[i];
                [step.outputs[i].to_f32(), dx.as_ref().map(Values::to_f32).unwrap_or_default(), dw.clone()]
            };
            let results = of(&plain).into_iter().zip(of(&found)).zip(["y", "dx", "dW"]).zip(takes_part);
            for (((plain, found), product), takes_part) in results {
                let factor = if takes_part { FACTOR } else { 1.0 };
                let off = plain
                    .iter()
                    .zip(&found)
                    .find(|(plain, found)| (*plain * factor).to_bits() != found.to_bits());
                if let Some((plain, found)) = off {
                    return Err(Failure::Wrong(format!(
                        "{tensor} times {FACTOR}: {product} of layer {i} should be {:e}, {factor} times {plain:e}, \
                         but is {found:e}: make scales in proportion to the data, without constants added to it",
                        plain * factor
                    )));
                }
            }
        }
    }
    Ok(format!("x, W and dy times {FACTOR}"))
}

/// Data that grows 4096-fold in three steps is as exact as before when scales have had time to follow.
pub(crate) fn data_that_grows_is_followed(subject: &Subject<'_>) -> Found {
    let mut layers = subject.group()?;
    let grown = |values: &Values, factor: f32| {
        let numbers: Vec<_> = values.to_f32().iter().map(|x| x * factor).collect();
        Values::new(F32, values.rows(), values.cols(), &numbers)
    };
    let mut data = Vec::new();
    for (i, factor) in (0..).zip([1.0, 16.0, 256.0, 4096.0, 4096.0, 4096.0]) {
        let dys: Vec<_> = output_gradients(F32, 64, i).iter().map(|dy| grown(dy, factor)).collect();
        data.push((grown(&input(F32, 64, i), factor), dys));
    }
    let Some((last, before)) = data.split_last() else { return Ok(String::new()) };
    for (x, dys) in before {
        for i in 0..NS.len() {
            layers.weight_mut(i).iter_mut().for_each(|w| *w *= 2.0);
        }
        layers.on(Event::WeightsChanged)?;
        layers.step(x, dys)?;
    }
    let (x, dys) = last;
    let step = layers.step(x, dys)?;
    let advice = "two steps after the data has grown, its maxima must be in the scales";
    in_band(&layers, &step, x, dys, advice)
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
        ensure!(
            y >= FP8.0 && dx >= FP8.0,
            "layer {i}: y at {y:.1} dB, dx at {dx:.1} dB of the new weight: cast the weight anew after \
             Event::WeightsChanged, for forward and for backward"
        );
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
            ensure!(
                agree(subject.on_card(), &plain.outputs[i], &found.outputs[i]),
                "layer {i}, {tokens} tokens: rows of zeros below them changed y: let no scale depend on the number of rows"
            );
            let dx = |step: &Step| step.gradients[i].dx.clone();
            let (dx, padded_dx) = (dx(&plain), dx(&found));
            let dx_agrees =
                dx.zip(padded_dx).is_none_or(|(dx, padded)| agree(subject.on_card(), &dx, &padded));
            ensure!(
                dx_agrees,
                "layer {i}, {tokens} tokens: rows of zeros below them changed dx: let no scale depend on the number of rows"
            );
            let (dw, padded_dw) = (&plain.gradients[i].dw, &found.gradients[i].dw);
            ensure!(
                agree_in_numbers(subject.on_card(), F32, K, dw, padded_dw),
                "layer {i}, {tokens} tokens: rows of zeros below them changed dW: sum over tokens in ascending order"
            );
        }
    }
    let (x, dys) = (input(Bf16, 0, 0), output_gradients(Bf16, 0, 0));
    let mut layers = subject.group()?;
    let nothing = layers.step(&x, &dys)?;
    let zero = nothing.gradients.iter().all(|gradients| gradients.dw.iter().all(|&dw| dw == 0.0));
    ensure!(zero, "without tokens dW is not zero: overwrite it with zeros unless `accumulate_dw` is set");
    accumulation_adds(subject)?;
    gradients_of_a_group_add_up(subject)?;
    Ok("1, 7, 17 and 0 tokens".into())
}

/// `dx` is added to as well: the layers of a group share one.
fn gradients_of_a_group_add_up(subject: &Subject<'_>) -> Result<(), Failure> {
    const TOKENS: usize = 17;
    for dtype in [F32, Bf16] {
        let mut layers = subject.group()?;
        let (x, dys) = (input(dtype, TOKENS, 0), output_gradients(dtype, TOKENS, 0));
        let (_, saved) = layers.forward(fp8flow_sdk::Pass::Train, &x)?;
        let old = Values::normal(dtype, TOKENS, K, 1e-3, 8);
        for (i, dy) in dys.iter().enumerate() {
            let alone = layers.gradients(i, &saved, &x, dy)?;
            let Gradients { dx: Some(alone), dw, .. } = alone else { continue };
            let mut sum = Gradients { dx: Some(old.clone()), dw, accumulate_dx: true, accumulate_dw: false };
            layers.backward(i, &saved, &x, dy, &mut sum)?;
            let found = sum.dx.as_ref().map(Values::to_f32).unwrap_or_default();
            let epsilon = if dtype == F32 { 1e-6 } else { 1.0 / 128.0 };
            let alone = alone.to_f32();
            let more = another_order(subject, dtype, &alone);
            for ((old, new), sum) in old.to_f32().iter().zip(alone).zip(found) {
                let off = (old + new - sum).abs();
                ensure!(
                    off <= epsilon * (old.abs() + new.abs()) + more,
                    "layer {i}: with `accumulate_dx`, {old:e} + {new:e} became {sum:e}: add to what is there"
                );
            }
        }
    }
    Ok(())
}

/// How far a product that is added to something may be from the same one by itself, which on a card is another product.
fn another_order(subject: &Subject<'_>, dtype: Activations, alone: &[f32]) -> f32 {
    if subject.on_card() { apart(dtype) * largest(alone) } else { 0.0 }
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
        let more = another_order(subject, F32, &alone.dw);
        for ((old, new), sum) in old.iter().zip(&alone.dw).zip(&sum.dw) {
            let off = (old + new - sum).abs();
            ensure!(
                off <= 1e-6 * (old.abs() + new.abs()) + more,
                "{tokens} tokens: with `accumulate_dw`, {old:e} + {new:e} became {sum:e}: add to what is there"
            );
        }
    }
    Ok(())
}
