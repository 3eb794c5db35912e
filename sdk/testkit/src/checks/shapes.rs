//! Shapes beyond those of the other checks: whatever is decided as FP8 is computed right.

use fp8flow_sdk::{Pass, Precision};

use super::numerics::{measure, uneven, uneven_values};
use super::{Found, ensure};
use crate::driver::{Layers, facts};
use crate::layout::Layout;
use crate::memory::Fence;
use crate::subject::{Subject, here};
use crate::values::Activations::F32;
use crate::values::{Values, normal};

/// M, N and K: narrow and wide, odd and square, some for recipes that work in blocks of 128.
const SHAPES: [[usize; 3]; 11] = [
    [64, 16, 16],
    [200, 48, 80],
    [200, 80, 48],
    [64, 7, 64],
    [64, 64, 7],
    [33, 32, 512],
    [33, 512, 32],
    [128, 128, 128],
    [80, 80, 80],
    [33, 128, 256],
    [130, 128, 384],
];
/// In dB, as in `accuracy`, with some allowance for small tensors.
const FP8: (f64, f64) = (18.0, 40.0);
const HIGH: (f64, f64) = (50.0, f64::INFINITY);

/// Every product of a layer of each shape that is taken, between pages that cannot be touched.
pub(crate) fn what_is_taken_is_right(subject: &Subject<'_>) -> Found {
    let mut taken = 0;
    for [m, n, k] in SHAPES {
        let recipe = subject.recipe(&here())?;
        if recipe.decide(&facts(0, 1, k, n)).precision == Precision::High {
            continue;
        }
        taken += 1;
        let mut weight = normal(n * k, 0.02, 100);
        uneven(&mut weight, k);
        let mut layers = Layers::new(recipe, k, vec![weight])?;
        layers.fence = Fence::Pages;
        layers.move_weights(Fence::Pages, Layout::Dense);
        let data = |cols, deviation, seed| {
            uneven_values(&Values::normal(F32, m, cols, deviation, seed))
                .copied_to(Fence::Pages, Layout::Dense)
        };
        let mut last = None;
        for seed in 0..3 {
            let (x, dy) = (data(k, 1.0, 20 + seed), data(n, 1e-3, 30 + seed));
            layers.telemetry = seed == 1;
            layers.forward(Pass::Eval, &x)?;
            let step = layers.step(&x, std::slice::from_ref(&dy))?;
            last = Some((x, dy, step));
        }
        let Some((x, dy, step)) = last else { continue };
        let found = measure(&layers, 0, &step, &x.dense(), &dy.dense());
        for ((db, product), fp8) in found.into_iter().zip(["y", "dx", "dW"]).zip(layers.decision(0).fp8_gemms)
        {
            let (low, high) = if fp8 == 1 { FP8 } else { HIGH };
            ensure!(
                (low..=high).contains(&db),
                "{m} tokens, {n}×{k}: {product} at {db:.1} dB, between {low} and {high} are due: compute this shape as \
                 well, or decide it as high precision"
            );
        }
    }
    Ok(format!("{taken} of {} taken", SHAPES.len()))
}

/// A term of a sum in bf16 is lost beyond 256 others, one of a sum in half precision beyond 2048.
const LONG: usize = 4096;
const SHORT: usize = 128;

/// Ones times ones, contracted over thousands: the result is their number.
pub(crate) fn long_sums_keep_their_terms(subject: &Subject<'_>) -> Found {
    let mut measured = Vec::new();
    for (product, [m, n, k]) in
        [("y", [16, SHORT, LONG]), ("dx", [16, LONG, SHORT]), ("dW", [LONG, SHORT, SHORT])]
    {
        let recipe = subject.recipe(&here())?;
        if recipe.decide(&facts(0, 1, k, n)).precision == Precision::High {
            continue;
        }
        let ones = |rows, cols| Values::new(F32, rows, cols, &vec![1.0; rows * cols]);
        let mut layers = Layers::new(recipe, k, vec![vec![1.0; n * k]])?;
        let (x, dy) = (ones(m, k), [ones(m, n)]);
        for _ in 0..2 {
            layers.step(&x, &dy)?;
        }
        let step = layers.step(&x, &dy)?;
        let gradients = &step.gradients[0];
        let found = match product {
            "y" => step.outputs[0].to_f32(),
            "dx" => gradients.dx.as_ref().map(Values::to_f32).unwrap_or_default(),
            _ => gradients.dw.clone(),
        };
        let part = |x: &f32| f64::from(*x) / LONG as f64;
        // A scale may leave room above a one, which then is rounded.
        let off = found.iter().find(|x| !(0.75..1.3).contains(&part(x)));
        if let Some(off) = off {
            ensure!(
                false,
                "{product}: {LONG} ones add up to {off}: add in f32, and round when the sum is done"
            );
        }
        measured.push(format!("{product} {:.3}", found.first().map_or(1.0, part)));
    }
    Ok(measured.join(", "))
}
