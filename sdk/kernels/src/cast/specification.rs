//! The casts as plain loops: the meaning of every path.

use super::{CastStats, Quantized};
use crate::scale::ScaleRule;
use crate::{Fp8, Matrix};

pub(super) fn cast_rows(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let Quantized { codes, scales } = out;
    for (i, scale) in scales.iter_mut().enumerate() {
        let amax = amax((0..x.cols).map(|j| x.elements.get(i * x.cols + j)));
        *scale = rule.scale(amax, format);
    }
    encode(x, format, |i, _| scales[i], codes, stats);
}

pub(super) fn cast_cols(
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let Quantized { codes, scales } = out;
    for (j, scale) in scales.iter_mut().enumerate() {
        let amax = amax((0..x.rows).map(|i| x.elements.get(i * x.cols + j)));
        *scale = rule.scale(amax, format);
    }
    encode(x, format, |_, j| scales[j], codes, stats);
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

pub(super) fn amax_of(x: Matrix<'_>) -> f32 {
    amax((0..x.elements.len()).map(|i| x.elements.get(i)))
}

/// `max |x|`, where a NaN wins.
fn amax(values: impl Iterator<Item = f32>) -> f32 {
    // Among non-negative floats and NaNs the order of the bits is the order of the values, NaN on top.
    f32::from_bits(values.map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0))
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
