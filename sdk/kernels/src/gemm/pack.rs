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
    let Operand { row_stride, depth_stride, .. } = *operand;
    for (row, panel) in (first..operand.rows).step_by(R).zip(out.chunks_exact_mut(R * steps.len())) {
        let rows = R.min(operand.rows - row);
        let panel = panel.as_chunks_mut::<R>().0;
        let x = &x[row * row_stride + steps.start * depth_stride..];
        if depth_stride == 1 {
            for i in 0..rows {
                for (out, x) in panel.iter_mut().zip(&x[i * row_stride..]) {
                    out[i] = decode(*x);
                }
            }
        } else {
            for (k, out) in panel.iter_mut().enumerate() {
                let x = &x[k * depth_stride..];
                match x.first_chunk::<R>() {
                    Some(x) if rows == R => {
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = decode(*x);
                        }
                    }
                    _ => {
                        for (out, x) in out.iter_mut().zip(&x[..rows]) {
                            *out = decode(*x);
                        }
                    }
                }
            }
        }
    }
}
