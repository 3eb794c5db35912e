//! Operands on their way to the registers: decoded to f32, in the order in which a tile reads them.
//!
//! A panel is `R` rows of an operand (`R` the height or width of the tile) along a stretch of the contraction: `R`
//! numbers a step, one after the other. Both layouts of an operand end here, so the product knows only one.

use std::ops::Range;

use super::Operand;
use crate::format::{E4M3_TO_F32, E5M2_TO_F32};
use crate::{Element, Elements};

/// Packs panels of `R` rows along `steps`, from row `first` on, until `out` is full or the operand ends.
///
/// In the operand's last panel, rows beyond its end keep what was in `out`: sums with them are not stored.
#[inline(always)]
pub(super) fn panels<const R: usize>(
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    out: &mut [f32],
) {
    let codes = |x, table: &[f32; 256], out| {
        panels_of::<_, R>(x, |code: u8| table[usize::from(code)], operand, first, steps.clone(), out);
    };
    match operand.elements {
        Elements::F32(x) => panels_of::<_, R>(x, Element::widen, operand, first, steps, out),
        Elements::Bf16(x) => panels_of::<_, R>(x, Element::widen, operand, first, steps, out),
        Elements::E4m3(x) => codes(x, &E4M3_TO_F32, out),
        Elements::E5m2(x) => codes(x, &E5M2_TO_F32, out),
    }
}

#[inline(always)]
fn panels_of<E: Copy, const R: usize>(
    x: &[E],
    decode: impl Fn(E) -> f32,
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    out: &mut [f32],
) {
    match operand.grid {
        None => panels_by::<_, R>(x, |x, _| decode(x), operand, first, steps, out),
        Some(_) => panels_by::<_, R>(x, |x, factor| decode(x) * factor, operand, first, steps, out),
    }
}

/// `decode` is given the element and its factor.
#[inline(always)]
fn panels_by<E: Copy, const R: usize>(
    x: &[E],
    decode: impl Fn(E, f32) -> f32,
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    out: &mut [f32],
) {
    let Operand { row_stride, depth_stride, .. } = *operand;
    for (row, panel) in (first..operand.rows).step_by(R).zip(out.chunks_exact_mut(R * steps.len())) {
        let rows = R.min(operand.rows - row);
        let mut panel = panel.as_chunks_mut::<R>().0;
        let mut steps = steps.clone();
        while !steps.is_empty() {
            let factors = factors::<R>(operand, row, rows, steps.start);
            let (part, rest) = panel.split_at_mut(steps_alike(operand, &steps));
            let x = &x[row * row_stride + steps.start * depth_stride..];
            steps.start += part.len();
            panel = rest;
            if depth_stride == 1 {
                for (i, factor) in factors.into_iter().enumerate().take(rows) {
                    scatter(&x[i * row_stride..], |x| decode(x, factor), i, part);
                }
                continue;
            }
            for (k, out) in part.iter_mut().enumerate() {
                let x = &x[k * depth_stride..];
                match x.first_chunk::<R>() {
                    Some(x) if rows == R => {
                        for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
                            *out = decode(*x, factor);
                        }
                    }
                    _ => {
                        for ((out, x), factor) in out.iter_mut().zip(&x[..rows]).zip(factors) {
                            *out = decode(*x, factor);
                        }
                    }
                }
            }
        }
    }
}

/// How many of `steps`, from the first on, have the factors of the first.
#[inline(always)]
fn steps_alike(operand: &Operand<'_>, steps: &Range<usize>) -> usize {
    operand
        .grid
        .map_or(steps.len(), |grid| (grid.depth_block - steps.start % grid.depth_block).min(steps.len()))
}

/// The factors of `rows` rows from `row` on at a step; ones for all others.
#[inline(always)]
fn factors<const R: usize>(operand: &Operand<'_>, row: usize, rows: usize, step: usize) -> [f32; R] {
    let mut factors = [1.0; R];
    if let Some(grid) = &operand.grid {
        for (i, factor) in factors.iter_mut().enumerate().take(rows) {
            *factor = grid.factor(row + i, step);
        }
    }
    factors
}

/// `out[k][i] = decode(x[k])` for each `k`.
///
/// A function of its own, and so compiled for the baseline: AVX-512 would do it with scatters, which are slow on many
/// CPUs, and nothing else has anything faster than a store a number.
#[inline(never)]
fn scatter<E: Copy, const R: usize>(x: &[E], decode: impl Fn(E) -> f32, i: usize, out: &mut [[f32; R]]) {
    for (out, x) in out.iter_mut().zip(x) {
        out[i] = decode(*x);
    }
}
