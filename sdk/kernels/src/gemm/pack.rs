//! Operands on their way to the registers: decoded to f32, in the order in which a tile reads them.
//!
//! A panel is `R` rows of an operand (`R` the height or width of the tile) along a stretch of the contraction: `R`
//! numbers a step, one after the other. Both layouts of an operand end here, so the product knows only one.

use std::ops::Range;

use bytemuck::Zeroable;
use half::bf16;

use super::Operand;
use crate::{Elements, Fp8};

/// How the elements of an operand become f32.
trait Source: Copy {
    type Element: bytemuck::Pod;
    fn decode(element: Self::Element) -> f32;
}

#[derive(Clone, Copy)]
struct F32;
#[derive(Clone, Copy)]
struct Bf16;
#[derive(Clone, Copy)]
struct E4m3;
#[derive(Clone, Copy)]
struct E5m2;

impl Source for F32 {
    type Element = f32;
    #[inline(always)]
    fn decode(element: f32) -> f32 {
        element
    }
}

impl Source for Bf16 {
    type Element = bf16;
    #[inline(always)]
    fn decode(element: bf16) -> f32 {
        f32::from_bits(u32::from(element.to_bits()) << 16)
    }
}

impl Source for E4m3 {
    type Element = u8;
    #[inline(always)]
    fn decode(element: u8) -> f32 {
        Fp8::E4m3.decode_bits(u32::from(element))
    }
}

impl Source for E5m2 {
    type Element = u8;
    #[inline(always)]
    fn decode(element: u8) -> f32 {
        Fp8::E5m2.decode_bits(u32::from(element))
    }
}

/// Packs panels of `R` rows along `steps`, from row `first` on, until `out` is full or the operand ends.
///
/// In the operand's last panel, rows beyond its end get any numbers: sums with them are not stored.
#[inline(always)]
pub(super) fn panels<const R: usize>(
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    out: &mut [f32],
) {
    match operand.elements {
        Elements::F32(x) => panels_of::<F32, R>(x, operand, first, steps, out),
        Elements::Bf16(x) => panels_of::<Bf16, R>(x, operand, first, steps, out),
        Elements::E4m3(x) => panels_of::<E4m3, R>(x, operand, first, steps, out),
        Elements::E5m2(x) => panels_of::<E5m2, R>(x, operand, first, steps, out),
    }
}

/// Steps that are put in order before they are decoded: a run that is long for a vector and short for a cache.
const RUN: usize = 64;

#[inline(always)]
fn panels_of<S: Source, const R: usize>(
    x: &[S::Element],
    operand: &Operand<'_>,
    first: usize,
    steps: Range<usize>,
    out: &mut [f32],
) {
    let Operand { row_stride, depth_stride, .. } = *operand;
    let mut ordered = [[S::Element::zeroed(); R]; RUN];
    for (row, panel) in (first..operand.rows).step_by(R).zip(out.chunks_exact_mut(R * steps.len())) {
        let rows = R.min(operand.rows - row);
        for (from, out) in steps.clone().step_by(RUN).zip(panel.chunks_mut(R * RUN)) {
            let ordered = &mut ordered[..out.len() / R];
            let start = row * row_stride + from * depth_stride;
            if depth_stride == 1 {
                interleave(&x[start..], row_stride, rows, ordered);
            } else {
                for (k, ordered) in ordered.iter_mut().enumerate() {
                    let x = &x[start + k * depth_stride..];
                    match x.first_chunk::<R>() {
                        Some(x) if rows == R => *ordered = *x,
                        _ => ordered[..rows].copy_from_slice(&x[..rows]),
                    }
                }
            }
            for (out, x) in out.iter_mut().zip(ordered.as_flattened()) {
                *out = S::decode(*x);
            }
        }
    }
}

/// `ordered[k][i] = x[i · stride + k]` for `i < rows`.
#[inline(always)]
fn interleave<E: Copy, const R: usize>(x: &[E], stride: usize, rows: usize, ordered: &mut [[E; R]]) {
    for i in 0..rows {
        for (ordered, x) in ordered.iter_mut().zip(&x[i * stride..]) {
            ordered[i] = *x;
        }
    }
}
