//! The inner loops of casts, over slices, compiled for each instruction set.

use super::Quantized;
use super::tally::Counts;
use crate::scale::{Nan, ScaleRule};
use crate::{Element, Fp8, multiversion};

/// The bits of `max(top, |x|)`, from those of a `top`.
#[inline(always)]
fn greater(nan: Nan, top: u32, x: impl Element) -> u32 {
    let magnitude = x.widen().to_bits() & 0x7fff_ffff;
    match nan {
        // As whole numbers, the bits of magnitudes have the order of the values, NaN on top.
        Nan::Wins => magnitude.max(top),
        // No comparison with a NaN holds.
        Nan::Ignored if f32::from_bits(magnitude) > f32::from_bits(top) => magnitude,
        Nan::Ignored => top,
    }
}

multiversion! {
    /// The bits of `max |x|`; of 0 if there are no elements.
    pub(super) fn maximum<A: Element>(nan: Nan, x: &[A]) -> u32 {
        match nan {
            Nan::Wins => maximum_of(Nan::Wins, x),
            Nan::Ignored => maximum_of(Nan::Ignored, x),
        }
    }
}

/// `nan` is a constant to each caller.
#[inline(always)]
fn maximum_of(nan: Nan, x: &[impl Element]) -> u32 {
    // Several at a time: one running maximum would be a chain as long as the slice.
    let mut tops = [0; 64];
    let (chunks, rest) = x.as_chunks::<64>();
    for chunk in chunks {
        for (top, x) in tops.iter_mut().zip(chunk) {
            *top = greater(nan, *top, *x);
        }
    }
    let top = tops.iter().fold(0, |top, x| *x.max(&top));
    rest.iter().fold(top, |top, x| greater(nan, top, *x))
}

multiversion! {
    /// `maxima[j] ← max(maxima[j], |x[j]|)`, as bits.
    pub(super) fn raise<A: Element>(nan: Nan, maxima: &mut [u32], x: &[A]) {
        match nan {
            Nan::Wins => raise_all(Nan::Wins, maxima, x),
            Nan::Ignored => raise_all(Nan::Ignored, maxima, x),
        }
    }
}

/// `nan` is a constant to each caller.
#[inline(always)]
fn raise_all(nan: Nan, maxima: &mut [u32], x: &[impl Element]) {
    for (top, x) in maxima.iter_mut().zip(x) {
        *top = greater(nan, *top, *x);
    }
}

multiversion! {
    /// `codes[j] = encode(x[j] · scale)`.
    pub(super) fn encode<A: Element>(format: Fp8, x: &[A], scale: f32, codes: &mut [u8], counts: Option<&mut Counts>) {
        match format {
            Fp8::E4m3 => encode_all(Fp8::E4m3, x, std::iter::repeat(&scale), codes, counts),
            Fp8::E5m2 => encode_all(Fp8::E5m2, x, std::iter::repeat(&scale), codes, counts),
        }
    }
}

multiversion! {
    /// Casts pieces of `length` elements, each by a scale of its own.
    pub(super) fn cast_pieces<A: Element>(format: Fp8, rule: ScaleRule, length: usize, x: &[A], out: Quantized<'_>, counts: Option<&mut Counts>) {
        match (format, rule.nan()) {
            (Fp8::E4m3, Nan::Wins) => cast_all(Fp8::E4m3, Nan::Wins, rule, length, x, out, counts),
            (Fp8::E4m3, Nan::Ignored) => cast_all(Fp8::E4m3, Nan::Ignored, rule, length, x, out, counts),
            (Fp8::E5m2, Nan::Wins) => cast_all(Fp8::E5m2, Nan::Wins, rule, length, x, out, counts),
            (Fp8::E5m2, Nan::Ignored) => cast_all(Fp8::E5m2, Nan::Ignored, rule, length, x, out, counts),
        }
    }
}

/// `format` and `nan` are constants to each caller.
#[inline(always)]
fn cast_all(
    format: Fp8,
    nan: Nan,
    rule: ScaleRule,
    length: usize,
    x: &[impl Element],
    out: Quantized<'_>,
    mut counts: Option<&mut Counts>,
) {
    let pieces = x.chunks(length).zip(out.codes.chunks_mut(length)).zip(out.scales);
    for ((x, codes), scale) in pieces {
        *scale = rule.scale(f32::from_bits(maximum_of(nan, x)), format);
        encode_all(format, x, std::iter::repeat(&*scale), codes, counts.as_deref_mut());
    }
}

multiversion! {
    /// `codes[j] = encode(x[j] · scales[j])`.
    pub(super) fn encode_by_col<A: Element>(format: Fp8, x: &[A], scales: &[f32], codes: &mut [u8], counts: Option<&mut Counts>) {
        match format {
            Fp8::E4m3 => encode_all(Fp8::E4m3, x, scales.iter(), codes, counts),
            Fp8::E5m2 => encode_all(Fp8::E5m2, x, scales.iter(), codes, counts),
        }
    }
}

/// `format` is a constant to each caller.
#[inline(always)]
fn encode_all<'a, A: Element>(
    format: Fp8,
    x: &[A],
    scales: impl Iterator<Item = &'a f32> + Clone,
    codes: &mut [u8],
    counts: Option<&mut Counts>,
) {
    for ((code, x), scale) in codes.iter_mut().zip(x).zip(scales.clone()) {
        *code = format.encode(x.widen() * scale);
    }
    // Loops of their own, with products instead of `&&`: the three together would not become vectors.
    let Some(counts) = counts else { return };
    let mut saturated = 0_u32;
    for (x, scale) in x.iter().zip(scales) {
        let value = x.widen();
        saturated += u32::from(value.is_finite()) * u32::from((value * scale).abs() > format.max());
    }
    let mut underflowed = 0_u32;
    for (x, code) in x.iter().zip(&*codes) {
        underflowed += u32::from(x.widen() != 0.0) * u32::from(*code << 1 == 0);
    }
    counts.saturated += u64::from(saturated);
    counts.underflowed += u64::from(underflowed);
}
