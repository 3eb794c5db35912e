//! Casts from bf16 and f32 to FP8 with scales by row, by column or for the whole tensor.
//!
//! A code is `encode(f32(x) · s)` (one rounding in f32, one to FP8); `s` comes from the absolute maximum of the
//! row, column or tensor by a [`ScaleRule`]. Codes always lie in the layout of the source, `[rows, cols]`: GEMM
//! reads either direction.

use crate::scale::ScaleRule;
use crate::{Cpu, Fp8, Matrix};

/// What a cast did to the values, for telemetry; counted only where asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CastStats {
    /// Elements seen.
    pub elements: u64,
    /// Finite elements whose scaled value lies beyond the largest finite code.
    pub saturated: u64,
    /// Non-zero elements whose code is zero.
    pub underflowed: u64,
}

/// Scales and codes of one layout, to be written.
#[derive(Debug)]
pub struct Quantized<'a> {
    /// Codes, `rows · cols`, in the source's layout.
    pub codes: &'a mut [u8],
    /// Multiply-to-quantise factors: one a row, one a column, or one.
    pub scales: &'a mut [f32],
}

/// Casts with one scale a row.
pub fn cast_rows(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let _ = cpu;
    let Quantized { codes, scales } = out;
    for (i, scale) in scales.iter_mut().enumerate() {
        let amax = amax((0..x.cols).map(|j| x.elements.get(i * x.cols + j)));
        *scale = rule.scale(amax, format);
    }
    encode(x, format, |i, _| scales[i], codes, stats);
}

/// Casts with one scale a column.
pub fn cast_cols(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    let _ = cpu;
    let Quantized { codes, scales } = out;
    for (j, scale) in scales.iter_mut().enumerate() {
        let amax = amax((0..x.rows).map(|i| x.elements.get(i * x.cols + j)));
        *scale = rule.scale(amax, format);
    }
    encode(x, format, |_, j| scales[j], codes, stats);
}

/// Casts twice, with one scale a row and with one scale a column, in as few reads of `x` as possible.
pub fn cast_rows_and_cols(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    by_row: Quantized<'_>,
    by_col: Quantized<'_>,
    mut stats: Option<&mut CastStats>,
) {
    cast_rows(cpu, x, format, rule, by_row, stats.as_deref_mut());
    cast_cols(cpu, x, format, rule, by_col, stats);
}

/// Casts with the given scale for the whole tensor; `amax_of` gives what a scale is made from.
pub fn cast_tensor(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) {
    let _ = cpu;
    encode(x, format, |_, _| scale, codes, stats);
}

/// The absolute maximum of all elements; NaN if one is NaN, 0 if there are none.
pub fn amax_of(cpu: &Cpu<'_>, x: Matrix<'_>) -> f32 {
    let _ = cpu;
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
