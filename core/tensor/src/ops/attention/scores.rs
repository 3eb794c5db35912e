//! What happens to the scores of a tile, `[TILE, TILE]`, between the two products they stand between.

use std::f32::consts::{LN_2, LOG2_E};

use fp8flow_kernels::{Element, Isa, math, multiversion};

use super::super::tile::{Part, accumulate};
use super::layout::{Span, TILE, padded};
use crate::lanes::lane_sum;

/// The products `a · bᵀ` of the `len` first rows of a tile, `b` given as columns: `[TILE, TILE]`, with zeros for some of
/// those that are not `wanted`.
pub(super) fn products(
    isa: Isa,
    dim: usize,
    len: usize,
    wanted: Part,
    rows: &[f32],
    columns: &[f32],
    out: &mut [f32],
) {
    out.fill(0.0);
    accumulate(isa, [len, TILE, dim], [wanted, Part::All], rows, padded(dim), columns, out);
}

multiversion! {
    /// Turns `keys.len` rows of scores, a column a query, into weights `exp(scale · score − top)`, where `top` is the
    /// new maximum; `sum` gains them, and `fade` is what older weights are to be multiplied with.
    pub(super) fn weigh(scores: &mut [f32], seen: Part, keys: Span, scale: f32, top: &mut [f32], sum: &mut [f32], fade: &mut [f32]) {
        fade.copy_from_slice(top);
        for (key, scores) in scores.chunks_exact_mut(TILE).take(keys.len).enumerate() {
            for x in &mut *scores {
                *x *= scale;
            }
            scores[..seen.first_column(key)].fill(f32::NEG_INFINITY);
            for (x, top) in scores.iter().zip(&mut *top) {
                // A NaN passes by: its weight will be one, and spoil all that a query gets.
                *top = x.max(*top);
            }
        }
        for ((fade, top), sum) in fade.iter_mut().zip(&*top).zip(&mut *sum) {
            *fade = math::exp(*fade - top);
            *sum *= *fade;
        }
        for scores in scores.chunks_exact_mut(TILE).take(keys.len) {
            for ((x, top), sum) in scores.iter_mut().zip(&*top).zip(&mut *sum) {
                *x = math::exp(*x - top);
                *sum += *x;
            }
        }
    }
}

multiversion! {
    /// Rounds weights to `A`, as tensor cores take them: relative to the next power of two above the maximum `top`, so that
    /// a rounding is the same whichever tiles came before.
    pub(super) fn round<A: Element>(scores: &mut [f32], keys: Span, top: &[f32]) {
        let (mut factors, mut inverses) = ([1.0; TILE], [1.0; TILE]);
        for ((factor, inverse), top) in factors.iter_mut().zip(&mut inverses).zip(top) {
            let power = top * LOG2_E;
            *factor = math::exp((power - power.ceil()) * LN_2);
            *inverse = 1.0 / *factor;
        }
        for scores in scores.chunks_exact_mut(TILE).take(keys.len) {
            for ((x, factor), inverse) in scores.iter_mut().zip(&factors).zip(&inverses) {
                *x = A::narrow(*x * factor).widen() * inverse;
            }
        }
    }
}

multiversion! {
    /// Multiplies row `i` of a tile with `factors[i]`.
    pub(super) fn scale_rows(tile: &mut [f32], padded: usize, factors: &[f32]) {
        for (row, factor) in tile.chunks_exact_mut(padded).zip(factors) {
            for x in row {
                *x *= factor;
            }
        }
    }
}

multiversion! {
    /// Turns `keys.len` rows of scores, a column a query, into weights, and gradients of weights into those of scores:
    /// rounded to `A`, as tensor cores take them, before they are scaled.
    pub(super) fn differentiate<A: Element>(
        scores: &mut [f32], dweights: &mut [f32], seen: Part, keys: Span, scale: f32, lse: &[f32], delta: &[f32],
    ) {
        let rows = scores.chunks_exact_mut(TILE).zip(dweights.chunks_exact_mut(TILE));
        for (key, (scores, dweights)) in rows.take(keys.len).enumerate() {
            for (((x, dweight), lse), delta) in scores.iter_mut().zip(&mut *dweights).zip(lse).zip(delta) {
                let weight = math::exp(*x * scale - lse);
                *x = A::narrow(weight).widen();
                *dweight = A::narrow(weight * (*dweight - delta)).widen() * scale;
            }
            let first = seen.first_column(key);
            scores[..first].fill(0.0);
            dweights[..first].fill(0.0);
        }
    }
}

multiversion! {
    pub(super) fn dot<A: Element>(x: &[A], y: &[A]) -> f32 {
        lane_sum([x, y], [], |[x, y], [], acc| x.widen().mul_add(y.widen(), acc))
    }
}
