//! What a cast leaves in memory: codes, and the factors that undo their scales.
//!
//! Kept are the reciprocals, not the scales: a scale is used once, by the cast itself, and its reciprocal by every
//! GEMM. For powers of two it is exact; otherwise it is torchao's own `scale.reciprocal()`, rounded to f32.
//! Under torchao's rules the special values fall out of this: a row with an infinity has scale 0 and factor ∞, one with
//! a NaN has both NaN, and either makes its whole row of the output NaN.
//!
//! A delayed cast also keeps the absolute maximum it has met, for every layer of a group to record.

use fp8flow_kernels::cast::{
    CastStats, Quantized, amax_for, amax_ignoring_nan, cast_blocks, cast_cols, cast_row_and_col_blocks,
    cast_rows, cast_rows_and_cols, cast_tensor, cast_tensor_with_amax,
};
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_kernels::{Cpu, Elements, Epilogue, Fp8, Grid, Matrix, Operand};

use crate::region::{Carve, Read, piece};
use crate::scaled::cast::{Cast, Granularity, Source};
use crate::scaled::scales::Scales;
use crate::{Counters, Error, Pass, Result};

/// The cast of a matrix, to be written.
#[derive(Debug)]
pub(crate) struct EncodedMut<'a> {
    pub(crate) cast: Cast,
    pub(crate) codes: &'a mut [u8],
    /// Holds the scales while the cast runs (a delayed one from before), their reciprocals afterwards; then, for a
    /// delayed cast, the absolute maximum.
    pub(crate) factors: &'a mut [f32],
}

/// The cast of a matrix, to be multiplied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded<'a> {
    cast: Cast,
    codes: &'a [u8],
    factors: &'a [f32],
    rows: usize,
    cols: usize,
}

/// The bytes that the cast of a `rows × cols` matrix takes in a region.
pub(crate) fn bytes(cast: Cast, rows: usize, cols: usize) -> usize {
    piece::<u8>(rows * cols) + piece::<f32>(floats(cast, rows, cols))
}

/// The floats kept beside the codes.
pub(crate) fn floats(cast: Cast, rows: usize, cols: usize) -> usize {
    cast.scales(rows, cols) + usize::from(cast.source == Source::Delayed)
}

impl<'a> EncodedMut<'a> {
    /// Room for the cast of a `rows × cols` matrix: the next pieces of a region.
    pub(crate) fn carve(region: &mut Carve<'a>, cast: Cast, rows: usize, cols: usize) -> Result<Self> {
        let codes = region.bytes(rows * cols)?;
        let factors = region.floats(floats(cast, rows, cols))?;
        Ok(Self { cast, codes, factors })
    }

    /// Done writing.
    pub(crate) fn freeze(self, rows: usize, cols: usize) -> Encoded<'a> {
        Encoded { cast: self.cast, codes: self.codes, factors: self.factors, rows, cols }
    }

    /// Takes over a cast that somebody else has made in the same way.
    pub(crate) fn copy_from(&mut self, codes: &[u8], scales: &[f32]) -> Tally {
        self.codes.copy_from_slice(codes);
        self.factors.copy_from_slice(scales);
        Tally { non_finite: self.invert(), ..Tally::default() }
    }

    fn scales_mut(&mut self) -> Quantized<'_> {
        Quantized { codes: self.codes, scales: self.factors }
    }

    /// Casts with the scale that is there, and keeps the absolute maximum.
    fn cast_delayed(&mut self, cpu: &Cpu<'_>, x: Matrix<'_>, seen: Option<&mut CastStats>) -> u64 {
        let scale = self.factors[0];
        let amax = cast_tensor_with_amax(cpu, x, self.cast.format, scale, self.codes, seen);
        self.factors.copy_from_slice(&[1.0 / scale, amax]);
        u64::from(!amax.is_finite())
    }

    /// Turns scales into factors; returns how many came from an infinite or NaN maximum.
    fn invert(&mut self) -> u64 {
        let mut non_finite = 0;
        for factor in &mut *self.factors {
            *factor = 1.0 / *factor;
            non_finite += u64::from(!factor.is_finite());
        }
        non_finite
    }
}

impl EncodedMut<'_> {
    /// How many scales of a finite rule, which are 1 then, came from an infinite maximum; of other rules none: theirs show.
    ///
    /// An infinity is the largest number in such codes, so only where there is one `x` is asked.
    fn hidden(&self, x: Matrix<'_>) -> u64 {
        let Source::Current(ScaleRule::FiniteLinear | ScaleRule::FinitePowerOfTwo) = self.cast.source else {
            return 0;
        };
        let [height, width] = self.cast.block(x.rows, x.cols);
        let largest = self.cast.format.max_code();
        let across = x.cols.div_ceil(width);
        let infinite = |row: usize, cols: std::ops::Range<usize>| {
            let at = row * x.cols;
            let codes = &self.codes[at + cols.start..at + cols.end];
            codes.iter().fold(0, |most, code| most.max(code & 0x7f)) >= largest
                && cols.into_iter().any(|col| x.elements.get(at + col).is_infinite())
        };
        let from_infinity = |block: usize| {
            let (top, left) = (block / across * height, block % across * width);
            let cols = left..(left + width).min(x.cols);
            (top..(top + height).min(x.rows)).any(|row| infinite(row, cols.clone()))
        };
        let ones = self.factors.iter().enumerate().filter(|(_, factor)| **factor == 1.0);
        ones.filter(|&(block, _)| from_infinity(block)).count() as u64
    }
}

impl<'a> Encoded<'a> {
    /// The cast of a `rows × cols` matrix as it was carved.
    pub(crate) fn read(region: &mut Read<'a>, cast: Cast, rows: usize, cols: usize) -> Result<Self> {
        let codes = region.bytes(rows * cols)?;
        let factors = region.floats(floats(cast, rows, cols))?;
        Ok(Self { cast, codes, factors, rows, cols })
    }

    /// A cast kept as plain slices.
    pub(crate) fn new(cast: Cast, codes: &'a [u8], factors: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { cast, codes, factors, rows, cols }
    }

    /// Contracted along its columns: a scale a row can wait for the sum, blocks of columns cannot.
    pub(crate) fn by_rows(self) -> (Operand<'a>, Epilogue<'a>) {
        debug_assert_ne!(self.cast.granularity, Granularity::Col, "scales along the contraction");
        (self.operand(Operand::rows, Grid::rows), self.epilogue())
    }

    /// Contracted along its rows: a scale a column can wait for the sum.
    pub(crate) fn by_cols(self) -> (Operand<'a>, Epilogue<'a>) {
        debug_assert_ne!(self.cast.granularity, Granularity::Row, "scales along the contraction");
        (self.operand(Operand::transposed, Grid::transposed), self.epilogue())
    }

    /// The absolute maximum that a delayed cast has met.
    pub(crate) fn amax(self) -> Option<f32> {
        (self.cast.source == Source::Delayed).then(|| self.factors[1])
    }

    fn operand(
        self,
        as_operand: fn(Matrix<'a>) -> Operand<'a>,
        as_grid: fn(&'a [f32], [usize; 2], [usize; 2]) -> Grid<'a>,
    ) -> Operand<'a> {
        let operand = as_operand(Matrix::new(elements(self.cast.format, self.codes), self.rows, self.cols));
        match self.cast.granularity {
            Granularity::Blocks { rows, cols } => {
                operand.scaled(as_grid(self.factors, [self.rows, self.cols], [rows, cols]))
            }
            _ => operand,
        }
    }

    fn epilogue(self) -> Epilogue<'a> {
        match self.cast.granularity {
            Granularity::Tensor => Epilogue::Tensor(self.factors[0]),
            Granularity::Row | Granularity::Col => Epilogue::PerRow(self.factors),
            Granularity::Blocks { .. } => Epilogue::One,
        }
    }
}

/// FP8 codes as elements of a matrix.
pub(crate) fn elements(format: Fp8, codes: &[u8]) -> Elements<'_> {
    match format {
        Fp8::E4m3 => Elements::E4m3(codes),
        Fp8::E5m2 => Elements::E5m2(codes),
    }
}

/// What a cast has seen, on its way into the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    stats: CastStats,
    non_finite: u64,
    /// Where elements were examined.
    amax: Option<f32>,
}

/// The tensor that a cast is of: an index into [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `x`.
    Input = 0,
    /// `W`.
    Weight = 1,
    /// `dy`.
    Gradient = 2,
}

impl Tally {
    /// Adds this to the totals of `role`.
    pub(crate) fn count(self, counters: &mut Counters, role: Role) {
        let i = role as usize;
        counters.cast[i] += self.stats.elements;
        counters.saturated[i] += self.stats.saturated;
        counters.underflowed[i] += self.stats.underflowed;
        counters.non_finite[i] += self.non_finite;
        if let Some(amax) = self.amax {
            counters.amax[i] = f64::from(amax.min(f32::MAX));
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.stats.elements += other.stats.elements;
        self.stats.saturated += other.stats.saturated;
        self.stats.underflowed += other.stats.underflowed;
        self.non_finite += other.non_finite;
        self.amax = other.amax.or(self.amax);
    }
}

/// Sets the scales of those of `wanted` that are delayed, as the recipe has them.
pub(crate) fn set_delayed<'a, 'b: 'a>(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    wanted: impl Iterator<Item = &'a mut EncodedMut<'b>>,
    (role, pass): (Role, Pass),
    mut scales: Option<&mut (dyn Scales + 'static)>,
) -> Result<()> {
    for out in wanted.filter(|out| out.cast.source == Source::Delayed) {
        let scales = scales.as_mut().ok_or_else(|| Error::protocol("a delayed cast without scales"))?;
        out.factors[0] = scales.scale(role, pass, &mut || amax_ignoring_nan(cpu, x));
    }
    Ok(())
}

/// Casts `x` as each of `wanted` asks; two casts along rows and along columns in one read. Elements are examined only
/// with `telemetry`, scales always.
pub(crate) fn cast(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    wanted: [Option<&mut EncodedMut<'_>>; 2],
    telemetry: bool,
) -> Tally {
    let mut tally = Tally::default();
    if telemetry && wanted.iter().any(Option::is_some) {
        tally.amax = Some(amax_ignoring_nan(cpu, x));
    }
    let mut seen = telemetry.then_some(&mut tally.stats);
    tally.non_finite = match wanted {
        [Some(first), Some(second)] if let Some(rule) = rule_along_both(first.cast, second.cast) => {
            let (format, granularity) = (first.cast.format, first.cast.granularity);
            let [by_row, by_col] = [first.scales_mut(), second.scales_mut()];
            if let Granularity::Blocks { cols, .. } = granularity {
                cast_row_and_col_blocks(cpu, x, format, rule, cols, by_row, by_col, seen);
            } else {
                cast_rows_and_cols(cpu, x, format, rule, by_row, by_col, seen);
            }
            first.invert() + second.invert() + first.hidden(x) + second.hidden(x)
        }
        wanted => {
            let wanted = wanted.into_iter().flatten();
            wanted.map(|out| cast_one(cpu, x, out, seen.as_deref_mut())).sum()
        }
    };
    tally
}

/// The rule of two casts that are alike but for their scales: along rows, whole or in blocks, and along columns.
fn rule_along_both(first: Cast, second: Cast) -> Option<ScaleRule> {
    let alike = (first.format, first.source) == (second.format, second.source);
    let along_both = match (first.granularity, second.granularity) {
        (Granularity::Row, Granularity::Col) => true,
        (Granularity::Blocks { rows: 1, cols }, Granularity::Blocks { rows, cols: 1 }) => rows == cols,
        _ => false,
    };
    match first.source {
        Source::Current(rule) if alike && along_both => Some(rule),
        _ => None,
    }
}

fn cast_one(cpu: &Cpu<'_>, x: Matrix<'_>, out: &mut EncodedMut<'_>, seen: Option<&mut CastStats>) -> u64 {
    let Cast { format, granularity, source } = out.cast;
    let Source::Current(rule) = source else { return out.cast_delayed(cpu, x, seen) };
    match granularity {
        Granularity::Row => cast_rows(cpu, x, format, rule, out.scales_mut(), seen),
        Granularity::Col => cast_cols(cpu, x, format, rule, out.scales_mut(), seen),
        Granularity::Blocks { rows, cols } => {
            cast_blocks(cpu, x, format, rule, [rows, cols], out.scales_mut(), seen);
        }
        Granularity::Tensor => {
            let scale = rule.scale(amax_for(cpu, x, rule), format);
            out.factors[0] = scale;
            cast_tensor(cpu, x, format, scale, out.codes, seen);
        }
    }
    out.invert() + out.hidden(x)
}
