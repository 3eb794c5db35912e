//! The inner loops of casts, over slices, compiled for each instruction set.

use super::tally::Counts;
use crate::scale::Nan;
use crate::{Element, Fp8, multiversion};

/// The bits of `max(top, |x|)`, from those of a `top`.
#[inline(always)]
fn greater(nan: Nan, top: u32, x: impl Element) -> u32 {
    let magnitude = x.widen().to_bits() & 0x7fff_ffff;
    match nan {
        // As whole numbers, the bits of magnitudes have the order of the values, NaN on top.
        Nan::Wins => magnitude.max(top),
        // Not a comparison: that would become a conditional store.
        Nan::Ignored => f32::from_bits(top).max(f32::from_bits(magnitude)).to_bits(),
    }
}

multiversion! {
    /// The bits of `max |x|`; of 0 if there are no elements.
    pub(super) fn maximum<A: Element>(nan: Nan, x: &[A]) -> u32 {
        match nan {
            Nan::Wins => maximum_of::<64>(Nan::Wins, x),
            Nan::Ignored => maximum_of::<64>(Nan::Ignored, x),
        }
    }
}

multiversion! {
    /// The bits of `max |x|` of each piece of `length` elements.
    pub(super) fn maxima_of_pieces<A: Element>(nan: Nan, x: &[A], length: usize, maxima: &mut [u32]) {
        // Pieces may be short, and then too short for more at a time.
        match nan {
            Nan::Wins => for (top, x) in maxima.iter_mut().zip(x.chunks(length)) {
                *top = maximum_of::<32>(Nan::Wins, x);
            }
            Nan::Ignored => for (top, x) in maxima.iter_mut().zip(x.chunks(length)) {
                *top = maximum_of::<32>(Nan::Ignored, x);
            }
        }
    }
}

/// `nan` is a constant to each caller.
#[inline(always)]
fn maximum_of<const WIDTH: usize>(nan: Nan, x: &[impl Element]) -> u32 {
    // Several at a time: one running maximum would be a chain as long as the slice.
    let mut tops = [0; WIDTH];
    let (chunks, rest) = x.as_chunks::<WIDTH>();
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
    /// `codes[j] = encode(x[j] · scales[j])`.
    pub(super) fn encode_by_col<A: Element>(format: Fp8, x: &[A], scales: &[f32], codes: &mut [u8], counts: Option<&mut Counts>) {
        match format {
            Fp8::E4m3 => encode_all(Fp8::E4m3, x, scales.iter(), codes, counts),
            Fp8::E5m2 => encode_all(Fp8::E5m2, x, scales.iter(), codes, counts),
        }
    }
}

multiversion! {
    /// Codes of pieces of `length` elements with a scale each.
    pub(super) fn encode_by_piece<A: Element>(format: Fp8, x: &[A], length: usize, scales: &[f32], codes: &mut [u8], counts: Option<&mut Counts>) {
        match format {
            Fp8::E4m3 => encode_pieces(Fp8::E4m3, x, length, scales, codes, counts),
            Fp8::E5m2 => encode_pieces(Fp8::E5m2, x, length, scales, codes, counts),
        }
    }
}

/// `format` is a constant to each caller.
#[inline(always)]
fn encode_pieces(
    format: Fp8,
    x: &[impl Element],
    length: usize,
    scales: &[f32],
    codes: &mut [u8],
    mut counts: Option<&mut Counts>,
) {
    for ((x, codes), scale) in x.chunks(length).zip(codes.chunks_mut(length)).zip(scales) {
        encode_all(format, x, std::iter::repeat(scale), codes, counts.as_deref_mut());
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
