//! Operands on their way to the registers: decoded to f32, in the order in which a tile reads them.
//!
//! A panel is `R` rows of an operand (`R` the height or width of the tile) along a stretch of the contraction: `R`
//! numbers a step, one after the other. Both layouts of an operand end here, so the product knows only one.

use std::ops::Range;

use super::Operand;
use super::block::STRIP;
use crate::transpose::{Block, LENGTH, SIDE, Strip};
use crate::{Element, Elements, Fp8};

/// Packs panels of `R` rows along `steps`, from row `first` on, until `out` is full or the operand ends.
///
/// In the operand's last panel, rows beyond its end are any numbers: sums with them are not stored. `turn` is
/// [`plain`](crate::transpose::plain).
#[inline(always)]
pub(super) fn panels<const R: usize>(
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    turn: impl Fn(&Strip, usize, usize, &mut Block),
    out: &mut [f32],
) {
    match operand.elements {
        Elements::F32(x) => panels_of::<_, R>(x, Element::widen, operand, first, steps, turn, out),
        Elements::Bf16(x) => panels_of::<_, R>(x, Element::widen, operand, first, steps, turn, out),
        Elements::E4m3(x) => {
            panels_of::<_, R>(x, |code| Fp8::E4m3.widen(code), operand, first, steps, turn, out);
        }
        Elements::E5m2(x) => {
            panels_of::<_, R>(x, |code| Fp8::E5m2.widen(code), operand, first, steps, turn, out);
        }
    }
}

#[inline(always)]
fn panels_of<E: Copy, const R: usize>(
    x: &[E],
    decode: impl Fn(E) -> f32,
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    turn: impl Fn(&Strip, usize, usize, &mut Block),
    out: &mut [f32],
) {
    match operand.grid {
        None => panels_by::<_, R>(x, |x, _| decode(x), operand, first, steps, turn, out),
        Some(_) => panels_by::<_, R>(x, |x, factor| decode(x) * factor, operand, first, steps, turn, out),
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
    turn: impl Fn(&Strip, usize, usize, &mut Block),
    out: &mut [f32],
) {
    let Operand { row_stride, depth_stride, .. } = *operand;
    let panel = R * steps.len();
    let rows = first..operand.rows.min(first + out.len() / steps.len());
    let mut done = 0;
    while done < steps.len() {
        let start = steps.start + done;
        let alike = steps_alike(operand, start, steps.end);
        if depth_stride == 1 {
            for (row, panel) in rows.clone().step_by(R).zip(out.chunks_exact_mut(panel)) {
                let x = &x[row * row_stride + start..];
                let height = R.min(rows.end - row);
                let factors = factors::<R>(operand, row, height, start);
                let panel = &mut panel.as_chunks_mut::<R>().0[done..][..alike];
                along(x, row_stride, height, &decode, &factors, &turn, panel);
            }
        } else {
            let factors = factors::<STRIP>(operand, first, rows.len(), start);
            let x = &x[first + start * depth_stride..];
            across::<_, R>(
                x,
                depth_stride,
                rows.len(),
                &decode,
                &factors,
                alike,
                panel,
                &mut out[done * R..],
            );
        }
        done += alike;
    }
}

/// Panels from rows that lie side by side: element `i` of step `k` at `x[k · stride + i]`, panels `panel` floats apart.
#[inline(always)]
fn across<E: Copy, const R: usize>(
    x: &[E],
    stride: usize,
    rows: usize,
    decode: impl Fn(E, f32) -> f32,
    factors: &[f32; STRIP],
    steps: usize,
    panel: usize,
    out: &mut [f32],
) {
    // A few steps at a time: panels are far apart, and often by a multiple of what the caches tell apart.
    let mut decoded = [[0.0; STRIP]; SIDE];
    for start in (0..steps).step_by(SIDE) {
        let height = SIDE.min(steps - start);
        for (k, decoded) in decoded.iter_mut().enumerate().take(height) {
            let x = &x[(start + k) * stride..][..rows];
            for ((decoded, x), factor) in decoded.iter_mut().zip(x).zip(factors) {
                *decoded = decode(*x, *factor);
            }
        }
        for i in (0..rows).step_by(R) {
            let out = &mut out[i / R * panel + start * R..];
            for (out, decoded) in out.as_chunks_mut::<R>().0.iter_mut().zip(&decoded).take(height) {
                out.copy_from_slice(&decoded[i..i + R]);
            }
        }
    }
}

/// A panel from rows that lie along the steps: element `k` of row `i` at `x[i · stride + k]`, turned over by blocks.
#[inline(always)]
fn along<E: Copy, const R: usize>(
    x: &[E],
    stride: usize,
    rows: usize,
    decode: impl Fn(E, f32) -> f32,
    factors: &[f32; R],
    turn: impl Fn(&Strip, usize, usize, &mut Block),
    out: &mut [[f32; R]],
) {
    let (mut decoded, mut turned) = ([[0.0; LENGTH]; SIDE], [[0.0; SIDE]; SIDE]);
    for (n, out) in out.chunks_mut(LENGTH).enumerate() {
        for i in (0..rows).step_by(SIDE) {
            let height = SIDE.min(rows - i).min(R - i);
            for (row, decoded) in decoded.iter_mut().enumerate().take(height) {
                let x = &x[(i + row) * stride + n * LENGTH..][..out.len()];
                let factor = factors[i + row];
                for (decoded, x) in decoded.iter_mut().zip(x) {
                    *decoded = decode(*x, factor);
                }
            }
            for (first, out) in out.chunks_mut(SIDE).enumerate() {
                turn(&decoded, first * SIDE, height, &mut turned);
                // A length known beforehand where it can be.
                if R - i >= SIDE {
                    out.iter_mut().zip(&turned).for_each(|(out, t)| out[i..i + SIDE].copy_from_slice(t));
                } else {
                    out.iter_mut().zip(&turned).for_each(|(out, t)| out[i..].copy_from_slice(&t[..R - i]));
                }
            }
        }
    }
}

/// How many steps from `start` on, up to `end`, have the factors of the first.
#[inline(always)]
fn steps_alike(operand: &Operand<'_>, start: usize, end: usize) -> usize {
    let left = end - start;
    operand.grid.map_or(left, |grid| (grid.depth_block - start % grid.depth_block).min(left))
}

/// The factors of `rows` rows from `row` on at a step; ones for all others.
#[inline(always)]
fn factors<const N: usize>(operand: &Operand<'_>, row: usize, rows: usize, step: usize) -> [f32; N] {
    let mut factors = [1.0; N];
    if let Some(grid) = &operand.grid {
        for (i, factor) in factors.iter_mut().enumerate().take(rows) {
            *factor = grid.factor(row + i, step);
        }
    }
    factors
}
