//! Casts from bf16 and f32 to FP8 with scales by row, by column or for the whole tensor.
//!
//! A code is `encode(f32(x) · s)` (one rounding in f32, one to FP8); `s` comes from the absolute maximum of the
//! row, column or tensor by a [`ScaleRule`]. Codes always lie in the layout of the source, `[rows, cols]`: GEMM
//! reads either direction.
//!
//! `specification` says what each cast does. The functions here do the same in vectors and on threads: a task takes
//! a block of rows, so that it reads and writes memory in order; by row it meets each element once in memory, by
//! column twice, since a scale is known only after the last row. Codes and matrices of nothing are left to the
//! specification.

mod slice;
mod specification;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use self::slice::Counts;
use crate::buffer::Buffer;
use crate::parallel::for_each;
use crate::scale::ScaleRule;
use crate::{Cpu, Element, Elements, Fp8, Matrix};

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
///
/// # Panics
/// If there are not `rows · cols` codes and `rows` scales.
pub fn cast_rows(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    out.check(x, x.rows);
    match x.elements {
        Elements::F32(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).rows(out, None, stats);
        }
        Elements::Bf16(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).rows(out, None, stats);
        }
        _ => specification::cast_rows(x, format, rule, out, stats),
    }
}

/// Casts with one scale a column.
///
/// # Panics
/// If there are not `rows · cols` codes and `cols` scales.
pub fn cast_cols(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    out.check(x, x.cols);
    match x.elements {
        Elements::F32(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).cols(out, stats);
        }
        Elements::Bf16(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).cols(out, stats);
        }
        _ => specification::cast_cols(x, format, rule, out, stats),
    }
}

/// Casts twice, with one scale a row and with one scale a column; reads `x` as often as [`cast_cols`] does.
///
/// # Panics
/// If codes or scales are not as [`cast_rows`] and [`cast_cols`] want them.
pub fn cast_rows_and_cols(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    by_row: Quantized<'_>,
    by_col: Quantized<'_>,
    mut stats: Option<&mut CastStats>,
) {
    by_row.check(x, x.rows);
    by_col.check(x, x.cols);
    match x.elements {
        Elements::F32(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).rows_and_cols(by_row, by_col, stats);
        }
        Elements::Bf16(elements) if !elements.is_empty() => {
            Cast::new(cpu, elements, x, format, rule).rows_and_cols(by_row, by_col, stats);
        }
        _ => {
            specification::cast_rows(x, format, rule, by_row, stats.as_deref_mut());
            specification::cast_cols(x, format, rule, by_col, stats);
        }
    }
}

/// Casts with the given scale for the whole tensor; `amax_of` gives what a scale is made from.
///
/// # Panics
/// If there are not `rows · cols` codes.
pub fn cast_tensor(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) {
    assert_eq!(codes.len(), x.elements.len(), "one code an element");
    match x.elements {
        Elements::F32(elements) if !elements.is_empty() => tensor(cpu, elements, format, scale, codes, stats),
        Elements::Bf16(elements) if !elements.is_empty() => {
            tensor(cpu, elements, format, scale, codes, stats);
        }
        _ => specification::cast_tensor(x, format, scale, codes, stats),
    }
}

/// The absolute maximum of all elements; NaN if one is NaN, 0 if there are none.
pub fn amax_of(cpu: &Cpu<'_>, x: Matrix<'_>) -> f32 {
    match x.elements {
        Elements::F32(elements) if !elements.is_empty() => amax(cpu, elements),
        Elements::Bf16(elements) if !elements.is_empty() => amax(cpu, elements),
        _ => specification::amax_of(x),
    }
}

/// Elements of a task: some ten microseconds of work.
const TASK: usize = 1 << 15;

impl Quantized<'_> {
    fn check(&self, x: Matrix<'_>, scales: usize) {
        assert_eq!(self.codes.len(), x.elements.len(), "one code an element");
        assert_eq!(self.scales.len(), scales, "scales of a {}×{} matrix", x.rows, x.cols);
    }
}

/// What all tasks of a cast have in common; there are elements.
struct Cast<'a, A> {
    cpu: &'a Cpu<'a>,
    x: &'a [A],
    cols: usize,
    format: Fp8,
    rule: ScaleRule,
    /// Elements of a task, whole rows of them.
    block: usize,
}

impl<'a, A: Element> Cast<'a, A> {
    fn new(cpu: &'a Cpu<'a>, x: &'a [A], matrix: Matrix<'_>, format: Fp8, rule: ScaleRule) -> Self {
        let cols = matrix.cols;
        Self { cpu, x, cols, format, rule, block: (TASK / cols).max(1) * cols }
    }

    fn scale(&self, maximum: u32) -> f32 {
        self.rule.scale(f32::from_bits(maximum), self.format)
    }

    /// By row; raises `maxima`, one for each column and block, where they are asked for.
    fn rows(&self, out: Quantized<'_>, maxima: Option<&mut [u32]>, stats: Option<&mut CastStats>) {
        let Quantized { codes, scales } = out;
        let tally = Tally::new(stats.is_some());
        let mut maxima = maxima.map(|maxima| maxima.chunks_exact_mut(self.cols));
        let blocks = self.x.chunks(self.block).zip(codes.chunks_mut(self.block));
        let blocks = blocks.zip(scales.chunks_mut(self.block / self.cols));
        let blocks = blocks.map(|block| (block, maxima.as_mut().and_then(Iterator::next)));
        for_each(self.cpu.pool, blocks, |(((x, codes), scales), mut maxima)| {
            let mut counts = tally.start();
            let rows = x.chunks_exact(self.cols).zip(codes.chunks_exact_mut(self.cols)).zip(scales);
            for ((x, codes), scale) in rows {
                *scale = self.scale(slice::maximum(self.cpu.isa, x));
                slice::encode(self.cpu.isa, self.format, x, *scale, codes, counts.as_mut());
                if let Some(maxima) = &mut maxima {
                    slice::raise(self.cpu.isa, maxima, x);
                }
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }

    fn cols(&self, out: Quantized<'_>, stats: Option<&mut CastStats>) {
        self.with_maxima(|maxima| {
            let blocks = self.x.chunks(self.block).zip(maxima.chunks_exact_mut(self.cols));
            for_each(self.cpu.pool, blocks, |(x, maxima)| {
                x.chunks_exact(self.cols).for_each(|x| slice::raise(self.cpu.isa, maxima, x));
            });
            self.cols_by_maxima(maxima, out, stats);
        });
    }

    fn rows_and_cols(&self, by_row: Quantized<'_>, by_col: Quantized<'_>, mut stats: Option<&mut CastStats>) {
        self.with_maxima(|maxima| {
            self.rows(by_row, Some(&mut *maxima), stats.as_deref_mut());
            self.cols_by_maxima(maxima, by_col, stats);
        });
    }

    /// Lends `body` a zero for each column and block.
    fn with_maxima(&self, body: impl FnOnce(&mut [u32])) {
        let blocks = self.x.len().div_ceil(self.block);
        let mut buffer = Buffer::take(blocks * self.cols);
        buffer.fill(0.0);
        body(bytemuck::cast_slice_mut(&mut buffer));
    }

    fn cols_by_maxima(&self, maxima: &[u32], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        let Quantized { codes, scales } = out;
        for (j, scale) in scales.iter_mut().enumerate() {
            let maximum = maxima.iter().skip(j).step_by(self.cols).max();
            *scale = self.scale(maximum.copied().unwrap_or(0));
        }
        let tally = Tally::new(stats.is_some());
        let blocks = self.x.chunks(self.block).zip(codes.chunks_mut(self.block));
        for_each(self.cpu.pool, blocks, |(x, codes)| {
            let mut counts = tally.start();
            for (x, codes) in x.chunks_exact(self.cols).zip(codes.chunks_exact_mut(self.cols)) {
                slice::encode_by_col(self.cpu.isa, self.format, x, scales, codes, counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }
}

fn tensor<A: Element>(
    cpu: &Cpu<'_>,
    x: &[A],
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) {
    let tally = Tally::new(stats.is_some());
    for_each(cpu.pool, x.chunks(TASK).zip(codes.chunks_mut(TASK)), |(x, codes)| {
        let mut counts = tally.start();
        slice::encode(cpu.isa, format, x, scale, codes, counts.as_mut());
        tally.add(counts);
    });
    tally.finish(x.len(), stats);
}

fn amax<A: Element>(cpu: &Cpu<'_>, x: &[A]) -> f32 {
    let top = std::sync::atomic::AtomicU32::new(0);
    for_each(cpu.pool, x.chunks(TASK), |x| {
        top.fetch_max(slice::maximum(cpu.isa, x), Ordering::Relaxed);
    });
    f32::from_bits(top.into_inner())
}

/// Counts of all tasks, if anybody asked.
struct Tally {
    asked: bool,
    saturated: AtomicU64,
    underflowed: AtomicU64,
}

impl Tally {
    fn new(asked: bool) -> Self {
        Self { asked, saturated: AtomicU64::new(0), underflowed: AtomicU64::new(0) }
    }

    fn start(&self) -> Option<Counts> {
        self.asked.then(Counts::default)
    }

    fn add(&self, counts: Option<Counts>) {
        if let Some(Counts { saturated, underflowed }) = counts {
            self.saturated.fetch_add(saturated, Ordering::Relaxed);
            self.underflowed.fetch_add(underflowed, Ordering::Relaxed);
        }
    }

    fn finish(self, elements: usize, stats: Option<&mut CastStats>) {
        if let Some(stats) = stats {
            stats.elements += elements as u64;
            stats.saturated += self.saturated.into_inner();
            stats.underflowed += self.underflowed.into_inner();
        }
    }
}
