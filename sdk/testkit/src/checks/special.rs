//! Numbers that are none: they show in the results, or at least in the counters.

use fp8flow_sdk::{Counters, Event};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::step::Step;
use crate::subject::{K, NS, Subject, input, output_gradients};
use crate::values::Activations::{self, Bf16, F32};
use crate::values::Values;

const TOKENS: usize = 16;
/// Where the number is put.
const ROW: usize = 3;
const COLUMN: usize = 5;

/// A NaN makes all that it is a factor of NaN; an infinity shows there too, or is counted.
pub(crate) fn what_is_not_finite_shows(subject: &Subject<'_>) -> Found {
    let (mut shown, mut counted) = (0, 0);
    for (which, tensor) in ["x", "W", "dy"].into_iter().enumerate() {
        for (value, dtype) in
            [(f32::NAN, F32), (-f32::NAN, Bf16), (f32::INFINITY, F32), (f32::NEG_INFINITY, Bf16)]
        {
            let (layers, before, step) = spoilt(subject, dtype, which, value)?;
            // An input is cast by the first layer of its group only.
            let any = |of: &dyn Fn(&Counters, &Counters) -> bool, i: usize| {
                let layers = (0..layers.len()).map(|i| (layers.counters(i), before[i]));
                layers.enumerate().any(|(j, (after, before))| (which == 0 || i == j) && of(&after, &before))
            };
            for i in 0..layers.len() {
                let risen = any(&|after, before| after.non_finite[which] > before.non_finite[which], i);
                for (product, finite, of) in affected(&step, i, which) {
                    ensure!(
                        finite == 0 || !value.is_nan(),
                        "a NaN in {tensor}: {finite} of the {of} numbers of {product} of layer {i} that it is a \
                         factor of are finite: cast a NaN to the NaN of the format"
                    );
                    ensure!(
                        finite == 0 || risen,
                        "{value} in {tensor} hides: {finite} of the {of} numbers of {product} of layer {i} that it \
                         is a factor of are finite, and Counters::non_finite[{which}] has not risen: let it show, or \
                         count it"
                    );
                    shown += usize::from(finite == 0);
                    counted += usize::from(finite > 0 && risen);
                }
            }
        }
    }
    Ok(format!("shows {shown} times in results, {counted} in non_finite only"))
}

/// A step in which one tensor holds `value`, with the counters from before.
fn spoilt(
    subject: &Subject<'_>,
    dtype: Activations,
    which: usize,
    value: f32,
) -> Result<(Layers, Vec<Counters>, Step), Failure> {
    let mut layers = subject.group()?;
    layers.telemetry = true;
    for i in 0..2 {
        layers.step(&input(dtype, TOKENS, i), &output_gradients(dtype, TOKENS, i))?;
    }
    let before = (0..layers.len()).map(|i| layers.counters(i)).collect();
    let put = |values: &Values| {
        let mut numbers = values.to_f32();
        numbers[ROW * values.cols() + COLUMN] = value;
        Values::new(dtype, values.rows(), values.cols(), &numbers)
    };
    let (mut x, mut dys) = (input(dtype, TOKENS, 9), output_gradients(dtype, TOKENS, 9));
    match which {
        0 => x = put(&x),
        1 => {
            (0..NS.len()).for_each(|i| layers.weight_mut(i)[ROW * K + COLUMN] = value);
            layers.on(Event::WeightsChanged)?;
        }
        _ => dys = dys.iter().map(put).collect(),
    }
    let step = layers.step(&x, &dys)?;
    Ok((layers, before, step))
}

/// Of each product of layer `i`: how many of the numbers that the place in x, W or dy is a factor of are finite.
fn affected(step: &Step, i: usize, which: usize) -> Vec<(&'static str, usize, usize)> {
    let n = NS[i];
    let (y, gradients) = (step.outputs[i].to_f32(), &step.gradients[i]);
    let dx = gradients.dx.as_ref().map(Values::to_f32).unwrap_or_default();
    let dw = &gradients.dw;
    let row = |of: &[f32], cols: usize, row: usize| of[row * cols..][..cols].to_vec();
    let column = |of: &[f32], cols: usize, col: usize| of.iter().skip(col).step_by(cols).copied().collect();
    let numbers: [(&'static str, Vec<f32>); 2] = match which {
        0 => [("y", row(&y, n, ROW)), ("dW", column(dw, K, COLUMN))],
        1 => [("y", column(&y, n, ROW)), ("dx", column(&dx, K, COLUMN))],
        _ => [("dx", row(&dx, K, ROW)), ("dW", row(dw, K, COLUMN))],
    };
    let finite = |numbers: &[f32]| numbers.iter().filter(|x| x.is_finite()).count();
    numbers.into_iter().map(|(product, numbers)| (product, finite(&numbers), numbers.len())).collect()
}
