//! Casts from bf16 and f32 to FP8 with scales by row, by column, by block or for the whole tensor.
//!
//! A code is `encode(f32(x) · s)` (one rounding in f32, one to FP8); `s` comes from the absolute maximum of the
//! row, column, block or tensor by a [`ScaleRule`], which also says what a NaN does to that maximum. Codes always lie in the
//! layout of the source, `[rows, cols]`: GEMM reads either direction.
//!
//! `specification` says what each cast does. The functions here do the same in vectors and on threads: a task takes
//! a block of rows, so that it reads and writes memory in order; by row it meets each element once in memory, by
//! column twice, since a scale is known only after the last row. bf16 is encoded by way of half precision where that
//! gives the same codes (`way`, `f16c`), everything else as `Fp8::encode` says. Codes and matrices of nothing are left
//! to the specification.

mod axes;
mod blocks;
mod f16c;
mod slice;
mod source;
mod specification;
mod tally;
mod tensor;
#[cfg(test)]
mod tests;
mod way;

use std::ops::Range;

use self::source::Source;
pub use self::tally::CastStats;
use self::tensor::Top;
use self::way::Way;
use crate::scale::{Nan, ScaleRule};
use crate::{Cpu, Elements, Fp8, Matrix, grid};

/// Elements of a task: some ten microseconds of work.
const TASK: usize = 1 << 15;

/// Elements that are met twice while the first-level cache holds them.
const PIECE: usize = 1 << 13;

/// Rows whose maxima are found together, at most.
const ROWS: usize = 64;

/// Scales and codes of one layout, to be written.
#[derive(Debug)]
pub struct Quantized<'a> {
    /// Codes, `rows · cols`, in the source's layout.
    pub codes: &'a mut [u8],
    /// Multiply-to-quantise factors: one a row, one a column, one a block, or one.
    pub scales: &'a mut [f32],
}

impl Quantized<'_> {
    fn check(&self, x: Matrix<'_>, scales: usize) {
        assert_eq!(self.codes.len(), x.elements.len(), "one code an element");
        assert_eq!(self.scales.len(), scales, "scales of a {}×{} matrix", x.rows, x.cols);
    }

    fn check_blocks(&self, x: Matrix<'_>, block: [usize; 2]) {
        let [down, across] = grid([x.rows, x.cols], block);
        self.check(x, down * across);
    }
}

/// What all tasks of a cast have in common; there are elements.
struct Cast<'a, A> {
    cpu: &'a Cpu<'a>,
    x: &'a [A],
    /// Rows and columns.
    shape: [usize; 2],
    format: Fp8,
    rule: ScaleRule,
}

impl<'a, A: Source> Cast<'a, A> {
    fn new(cpu: &'a Cpu<'a>, x: &'a [A], matrix: Matrix<'_>, format: Fp8, rule: ScaleRule) -> Self {
        Self { cpu, x, shape: [matrix.rows, matrix.cols], format, rule }
    }

    /// How many tasks there should be where each costs something.
    fn tasks(&self) -> usize {
        let threads = self.cpu.pool.threads();
        // A few for each thread, so that none waits long for another.
        if threads == 1 { 1 } else { 4 * threads }
    }

    /// Raises maxima of columns to those of some rows of them.
    fn raise(&self, nan: Nan, maxima: &mut [A::Magnitude], rows: Range<usize>, cols: Range<usize>) {
        for first in rows.clone().step_by(ROWS) {
            let tops = &mut [A::Magnitude::default(); ROWS][..ROWS.min(rows.end - first)];
            let x = &self.x[first * self.shape[1] + cols.start..];
            slice::raise(self.cpu.isa, nan, maxima, x, self.shape[1], tops);
        }
    }

    /// Says whether a NaN is among elements with these maxima, NaN on top; if so, and the rule passes over NaNs, has
    /// the maxima of the others found by `search`. NaNs are rare: this is faster than to look out for them.
    fn pass_over_nan(&self, maxima: &mut [A::Magnitude], search: impl FnOnce(&mut [A::Magnitude])) -> bool {
        let nan = maxima.iter().fold(A::Magnitude::default(), |top, x| top.max(*x)) > A::INFINITY;
        if nan && self.rule.nan() == Nan::Ignored {
            search(maxima);
        }
        nan
    }

    /// Sets the scales for maxima; says how their elements, among them a NaN or not, may be encoded.
    fn scales(&self, maxima: &[A::Magnitude], nan: bool, scales: &mut [f32]) -> Way {
        slice::scales::<A>(self.cpu.isa, self.rule, self.format, maxima, scales);
        if nan { Way::Any } else { slice::way::<A>(self.cpu.isa, self.format, maxima, scales) }
    }
}

/// `$fast` with the elements of a matrix as a slice of their type; `$plain` where there are none or they are codes.
macro_rules! by_type {
    ($x:expr, $elements:ident => $fast:expr, $plain:expr) => {
        match $x.elements {
            Elements::F32($elements) if !$elements.is_empty() => $fast,
            Elements::Bf16($elements) if !$elements.is_empty() => $fast,
            _ => $plain,
        }
    };
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
    by_type!(
        x,
        elements => Cast::new(cpu, elements, x, format, rule).rows(out, None, stats),
        specification::cast_rows(x, format, rule, out, stats)
    );
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
    by_type!(
        x,
        elements => Cast::new(cpu, elements, x, format, rule).cols(out, stats),
        specification::cast_cols(x, format, rule, out, stats)
    );
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
    by_type!(
        x,
        elements => Cast::new(cpu, elements, x, format, rule).rows_and_cols(by_row, by_col, stats),
        {
            specification::cast_rows(x, format, rule, by_row, stats.as_deref_mut());
            specification::cast_cols(x, format, rule, by_col, stats);
        }
    );
}

/// Casts with one scale for each block of `block` rows and columns; blocks at the lower and right edge may be smaller.
///
/// The scales lie row by row, as many down and across as [`grid`] says.
///
/// # Panics
/// If a block has no rows or no columns, or there are not `rows · cols` codes and a scale for each block.
pub fn cast_blocks(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    block: [usize; 2],
    out: Quantized<'_>,
    stats: Option<&mut CastStats>,
) {
    out.check_blocks(x, block);
    by_type!(
        x,
        elements => Cast::new(cpu, elements, x, format, rule).blocks(block, out, stats),
        specification::cast_blocks(x, format, rule, block, out, stats)
    );
}

/// Casts twice, in one read of memory: with one scale for each `length` elements of a row, and with one for each
/// `length` elements of a column. What a linear layer wants of its input and of its output's gradient, which are
/// contracted along both.
///
/// # Panics
/// If codes or scales are not as [`cast_blocks`] wants them for blocks of `[1, length]` and of `[length, 1]`.
pub fn cast_row_and_col_blocks(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    rule: ScaleRule,
    length: usize,
    by_row: Quantized<'_>,
    by_col: Quantized<'_>,
    mut stats: Option<&mut CastStats>,
) {
    by_row.check_blocks(x, [1, length]);
    by_col.check_blocks(x, [length, 1]);
    by_type!(
        x,
        elements => {
            Cast::new(cpu, elements, x, format, rule).row_and_col_blocks(length, by_row, by_col, stats);
        },
        {
            specification::cast_blocks(x, format, rule, [1, length], by_row, stats.as_deref_mut());
            specification::cast_blocks(x, format, rule, [length, 1], by_col, stats);
        }
    );
}

/// Casts with the given scale for the whole tensor; [`amax_of`] and [`amax_ignoring_nan`] give what a scale is made
/// from.
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
    by_type!(
        x,
        elements => tensor::cast(cpu, elements, format, scale, codes, None, stats),
        specification::cast_tensor(x, format, scale, codes, stats)
    );
}

/// [`cast_tensor`] and [`amax_ignoring_nan`] in one read of memory: what a recipe with a delayed scale needs, which
/// casts with the scale of earlier maxima and records the maximum of now.
///
/// # Panics
/// If there are not `rows · cols` codes.
pub fn cast_tensor_with_amax(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    stats: Option<&mut CastStats>,
) -> f32 {
    assert_eq!(codes.len(), x.elements.len(), "one code an element");
    by_type!(
        x,
        elements => {
            let top = Top::default();
            tensor::cast(cpu, elements, format, scale, codes, Some(&top), stats);
            top.amax()
        },
        {
            specification::cast_tensor(x, format, scale, codes, stats);
            specification::amax_of(x, Nan::Ignored)
        }
    )
}

/// The absolute maximum of all elements; NaN if one is NaN, 0 if there are none.
pub fn amax_of(cpu: &Cpu<'_>, x: Matrix<'_>) -> f32 {
    by_type!(x, elements => tensor::amax(cpu, Nan::Wins, elements), specification::amax_of(x, Nan::Wins))
}

/// The absolute maximum of all elements but NaNs, as CUDA's `fmaxf` finds it: infinity counts; 0 if there are none.
pub fn amax_ignoring_nan(cpu: &Cpu<'_>, x: Matrix<'_>) -> f32 {
    by_type!(x, elements => tensor::amax(cpu, Nan::Ignored, elements), specification::amax_of(x, Nan::Ignored))
}

/// The absolute maximum that `rule` makes the scale of a whole tensor from.
pub fn amax_for(cpu: &Cpu<'_>, x: Matrix<'_>, rule: ScaleRule) -> f32 {
    by_type!(x, elements => tensor::amax(cpu, rule.nan(), elements), specification::amax_of(x, rule.nan()))
}
