//! The inner loops of casts, over slices, compiled for each instruction set.

use super::f16c::{self, GROUP};
use super::source::Source;
use super::tally::Counts;
use super::way::{self, Way};
use crate::scale::{Nan, ScaleRule};
use crate::{Fp8, Isa, multiversion};

/// `max(top, |x|)`, as bits.
#[inline(always)]
fn greater<A: Source>(nan: Nan, top: A::Magnitude, x: A) -> A::Magnitude {
    let magnitude = x.magnitude();
    let passed_over = nan == Nan::Ignored && magnitude > A::INFINITY;
    top.max(if passed_over { A::Magnitude::default() } else { magnitude })
}

multiversion! {
    /// The bits of `max |x|`; of 0 if there are no elements.
    pub(super) fn maximum<A: Source>(nan: Nan, x: &[A]) -> A::Magnitude {
        match nan {
            Nan::Wins => maximum_of(Nan::Wins, x),
            Nan::Ignored => maximum_of(Nan::Ignored, x),
        }
    }
}

multiversion! {
    /// The bits of `max |x|` of each piece of `length` elements.
    pub(super) fn maxima_of_pieces<A: Source>(nan: Nan, x: &[A], length: usize, maxima: &mut [A::Magnitude]) {
        match nan {
            Nan::Wins => for (top, x) in maxima.iter_mut().zip(x.chunks(length)) {
                *top = maximum_of(Nan::Wins, x);
            }
            Nan::Ignored => for (top, x) in maxima.iter_mut().zip(x.chunks(length)) {
                *top = maximum_of(Nan::Ignored, x);
            }
        }
    }
}

/// `nan` is a constant to each caller.
#[inline(always)]
fn maximum_of<A: Source>(nan: Nan, x: &[A]) -> A::Magnitude {
    x.iter().fold(A::Magnitude::default(), |top, x| greater(nan, top, *x))
}

multiversion! {
    /// `maxima[j] ← max(maxima[j], |x[i · stride + j]|)` for each row `i`, as bits; `tops[i]` becomes the row's maximum.
    pub(super) fn raise<A: Source>(nan: Nan, maxima: &mut [A::Magnitude], x: &[A], stride: usize, tops: &mut [A::Magnitude]) {
        match nan {
            Nan::Wins => raise_rows(Nan::Wins, maxima, x, stride, tops),
            Nan::Ignored => raise_rows(Nan::Ignored, maxima, x, stride, tops),
        }
    }
}

/// `nan` is a constant to each caller.
#[inline(always)]
fn raise_rows<A: Source>(
    nan: Nan,
    maxima: &mut [A::Magnitude],
    x: &[A],
    stride: usize,
    tops: &mut [A::Magnitude],
) {
    let cols = maxima.len();
    let row = |i: usize| &x[i * stride..][..cols];
    // Four at a time: the maxima are read and written once for them.
    let (fours, others) = tops.as_chunks_mut::<4>();
    for (i, tops) in fours.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|j| row(4 * i + j));
        let zero = A::Magnitude::default();
        // Not an array: baseline x86-64 would find no vectors in it.
        let (mut tops_a, mut tops_b, mut tops_c, mut tops_d) = (zero, zero, zero, zero);
        for ((((top, a), b), c), d) in maxima.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            tops_a = greater(nan, tops_a, *a);
            tops_b = greater(nan, tops_b, *b);
            tops_c = greater(nan, tops_c, *c);
            tops_d = greater(nan, tops_d, *d);
            *top = greater(nan, greater(nan, greater(nan, greater(nan, *top, *a), *b), *c), *d);
        }
        *tops = [tops_a, tops_b, tops_c, tops_d];
    }
    let first = 4 * fours.len();
    for (i, all) in others.iter_mut().enumerate() {
        *all = A::Magnitude::default();
        let x = row(first + i);
        for (top, x) in maxima.iter_mut().zip(x) {
            *top = greater(nan, *top, *x);
            *all = greater(nan, *all, *x);
        }
    }
}

multiversion! {
    /// Scales for maxima.
    pub(super) fn scales<A: Source>(rule: ScaleRule, format: Fp8, maxima: &[A::Magnitude], scales: &mut [f32]) {
        match rule {
            ScaleRule::Linear => scales_by::<A>(ScaleRule::Linear, format, maxima, scales),
            ScaleRule::PowerOfTwo => scales_by::<A>(ScaleRule::PowerOfTwo, format, maxima, scales),
            ScaleRule::FiniteLinear => scales_by::<A>(ScaleRule::FiniteLinear, format, maxima, scales),
            ScaleRule::FinitePowerOfTwo => scales_by::<A>(ScaleRule::FinitePowerOfTwo, format, maxima, scales),
        }
    }
}

/// `rule` is a constant to each caller.
#[inline(always)]
fn scales_by<A: Source>(rule: ScaleRule, format: Fp8, maxima: &[A::Magnitude], scales: &mut [f32]) {
    for (scale, top) in scales.iter_mut().zip(maxima) {
        *scale = rule.scale(A::value(*top), format);
    }
}

/// Whether there is more than one way to encode.
pub(super) fn has_ways<A: Source>(isa: Isa) -> bool {
    isa != Isa::Scalar && A::IS_BF16
}

/// The way for elements with these maxima, NaN on top, one for each scale.
pub(super) fn way<A: Source>(isa: Isa, format: Fp8, maxima: &[A::Magnitude], scales: &[f32]) -> Way {
    if has_ways::<A>(isa) { way_of::<A>(isa, format, maxima, scales) } else { Way::Any }
}

multiversion! {
    fn way_of<A: Source>(format: Fp8, maxima: &[A::Magnitude], scales: &[f32]) -> Way {
        let (mut held, mut powers) = (true, true);
        for (top, scale) in maxima.iter().zip(scales) {
            held &= way::holds(format, A::value(*top), *scale);
            powers &= way::is_power(*scale);
        }
        Way::of(held, powers)
    }
}

/// Codes of pieces of `length` elements with a scale each.
pub(super) fn encode<A: Source>(
    isa: Isa,
    format: Fp8,
    way: Way,
    x: &[A],
    length: usize,
    scales: &[f32],
    codes: &mut [u8],
    counts: Option<&mut Counts>,
) {
    match A::halves(x) {
        Some(x) if way != Way::Any => f16c::encode(isa, format, way, x, length, scales, codes),
        _ => encode_any(isa, format, x, length, scales, codes),
    }
    if let Some(counts) = counts {
        for ((x, codes), scale) in x.chunks(length).zip(codes.chunks(length)).zip(scales) {
            count(isa, format, x, *scale, codes, counts);
        }
    }
}

/// Scales of columns, prepared for many rows.
pub(super) struct Columns<'a> {
    scales: &'a [f32],
    ordered: &'a [f32],
    way: Way,
}

impl<'a> Columns<'a> {
    /// Floats of memory for `cols` columns.
    pub(super) fn memory(cols: usize) -> usize {
        cols.next_multiple_of(GROUP)
    }

    pub(super) fn new(isa: Isa, format: Fp8, way: Way, scales: &'a [f32], memory: &'a mut [f32]) -> Self {
        if way != Way::Any {
            f16c::order(isa, format, way, scales, memory);
        }
        Self { scales, ordered: memory, way }
    }
}

/// Codes of a row, or of a part of it.
pub(super) fn encode_by_col<A: Source>(
    isa: Isa,
    format: Fp8,
    columns: &Columns<'_>,
    x: &[A],
    codes: &mut [u8],
    counts: Option<&mut Counts>,
) {
    match A::halves(x) {
        Some(x) if columns.way != Way::Any => {
            f16c::encode_by_col(isa, format, columns.way, x, columns.ordered, codes);
        }
        _ => encode_any_by_col(isa, format, x, columns.scales, codes),
    }
    if let Some(counts) = counts {
        count_by_col(isa, format, x, columns.scales, codes, counts);
    }
}

multiversion! {
    fn encode_any<A: Source>(format: Fp8, x: &[A], length: usize, scales: &[f32], codes: &mut [u8]) {
        for ((x, codes), scale) in x.chunks(length).zip(codes.chunks_mut(length)).zip(scales) {
            match format {
                Fp8::E4m3 => encode_all(Fp8::E4m3, x, std::iter::repeat(scale), codes),
                Fp8::E5m2 => encode_all(Fp8::E5m2, x, std::iter::repeat(scale), codes),
            }
        }
    }
}

multiversion! {
    fn encode_any_by_col<A: Source>(format: Fp8, x: &[A], scales: &[f32], codes: &mut [u8]) {
        match format {
            Fp8::E4m3 => encode_all(Fp8::E4m3, x, scales.iter(), codes),
            Fp8::E5m2 => encode_all(Fp8::E5m2, x, scales.iter(), codes),
        }
    }
}

/// `format` is a constant to each caller.
#[inline(always)]
fn encode_all<'a, A: Source>(format: Fp8, x: &[A], scales: impl Iterator<Item = &'a f32>, codes: &mut [u8]) {
    for ((code, x), scale) in codes.iter_mut().zip(x).zip(scales) {
        *code = format.encode(x.widen() * scale);
    }
}

multiversion! {
    fn count<A: Source>(format: Fp8, x: &[A], scale: f32, codes: &[u8], counts: &mut Counts) {
        count_all(format, x, std::iter::repeat(&scale), codes, counts);
    }
}

multiversion! {
    fn count_by_col<A: Source>(format: Fp8, x: &[A], scales: &[f32], codes: &[u8], counts: &mut Counts) {
        count_all(format, x, scales.iter(), codes, counts);
    }
}

#[inline(always)]
fn count_all<'a, A: Source>(
    format: Fp8,
    x: &[A],
    scales: impl Iterator<Item = &'a f32>,
    codes: &[u8],
    counts: &mut Counts,
) {
    // Two loops, with products instead of `&&`: else they would not become vectors.
    let mut saturated = 0_u32;
    for (x, scale) in x.iter().zip(scales) {
        let value = x.widen();
        saturated += u32::from(value.is_finite()) * u32::from((value * scale).abs() > format.max());
    }
    let mut underflowed = 0_u32;
    for (x, code) in x.iter().zip(codes) {
        underflowed += u32::from(x.widen() != 0.0) * u32::from(*code << 1 == 0);
    }
    counts.saturated += u64::from(saturated);
    counts.underflowed += u64::from(underflowed);
}
