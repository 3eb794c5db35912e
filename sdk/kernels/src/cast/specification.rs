//! The casts as plain loops: the meaning of every path.

use super::{CastStats, Quantized};
use crate::scale::{Nan, ScaleRule};
use crate::{Fp8, Matrix, grid};

pub(super) fn cast_rows(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    cast(x, format, rule, |i, _| i, out, stats);
}

pub(super) fn cast_cols(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    cast(x, format, rule, |_, j| j, out, stats);
}

pub(super) fn cast_blocks(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    block: [usize; 2],
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let [_, across] = grid([x.rows, x.cols], block);
    cast(x, format, rule, |i, j| i / block[0] * across + j / block[1], out, stats);
}

pub(super) fn cast_tensor(
    x: Matrix<'_>,
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) {
    encode(x, format, |_, _| scale, codes, stats);
}

pub(super) fn amax_of(x: Matrix<'_>, nan: Nan) -> f32 {
    (0..x.elements.len()).fold(0.0, |top, i| greater(nan, top, x.elements.get(i)))
}

/// One scale for all elements `(i, j)` of the same `part(i, j)`.
fn cast(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    part: impl Fn(usize, usize) -> usize,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let Quantized { codes, scales } = out;
    let mut maxima = vec![0.0; scales.len()];
    for i in 0..x.rows {
        for j in 0..x.cols {
            let top = &mut maxima[part(i, j)];
            *top = greater(rule.nan(), *top, x.elements.get(i * x.cols + j));
        }
    }
    for (scale, amax) in scales.iter_mut().zip(maxima) {
        *scale = rule.scale(amax, format);
    }
    encode(x, format, |i, j| scales[part(i, j)], codes, stats);
}

/// `max(top, |x|)`.
fn greater(nan: Nan, top: f32, x: f32) -> f32 {
    match nan {
        // Among magnitudes the order of the bits is the order of the values, NaN on top.
        Nan::Wins => f32::from_bits(top.to_bits().max(x.abs().to_bits())),
        Nan::Ignored => top.max(x.abs()),
    }
}

fn encode(
    x: Matrix<'_>,
    format: Fp8,
    scale: impl Fn(usize, usize) -> f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) {
    let mut seen = CastStats { elements: x.elements.len() as u64, saturated: 0, underflowed: 0 };
    for i in 0..x.rows {
        for j in 0..x.cols {
            let value = x.elements.get(i * x.cols + j);
            let scaled = value * scale(i, j);
            let code = format.encode(scaled);
            seen.saturated += u64::from(value.is_finite() && scaled.abs() > format.max());
            seen.underflowed += u64::from(value != 0.0 && (code << 1) == 0);
            codes[i * x.cols + j] = code;
        }
    }
    if let Some(stats) = stats {
        stats.elements += seen.elements;
        stats.saturated += seen.saturated;
        stats.underflowed += seen.underflowed;
    }
}
