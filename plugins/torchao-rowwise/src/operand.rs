//! What a cast leaves in memory: codes, and the factors that undo their scales.
//!
//! Kept are the reciprocals, not the scales: a scale is used once, by the cast itself, and its reciprocal by every
//! GEMM. For powers of two it is exact; otherwise it is torchao's own `scale.reciprocal()`, rounded to f32.
//! The special values fall out of this: a row with an infinity has scale 0 and factor ∞, one with a NaN has both NaN,
//! and either makes its whole row of the output NaN.

use fp8flow_sdk::kernels::cast::{
    CastStats, Quantized, amax_of, cast_cols, cast_rows, cast_rows_and_cols, cast_tensor,
};
use fp8flow_sdk::kernels::{Cpu, Elements, Epilogue, Fp8, Matrix, Operand};
use fp8flow_sdk::region::{Carve, Read, piece};
use fp8flow_sdk::{Counters, Result, ScaleAxis};

use crate::recipes::Cast;

/// The cast of a matrix, to be written.
#[derive(Debug)]
pub(crate) struct EncodedMut<'a> {
    pub(crate) cast: Cast,
    pub(crate) codes: &'a mut [u8],
    /// Holds the scales while the cast runs, their reciprocals afterwards.
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
    piece::<u8>(rows * cols) + piece::<f32>(cast.scales(rows, cols))
}

impl<'a> EncodedMut<'a> {
    /// Room for the cast of a `rows × cols` matrix: the next pieces of a region.
    pub(crate) fn carve(region: &mut Carve<'a>, cast: Cast, rows: usize, cols: usize) -> Result<Self> {
        let codes = region.bytes(rows * cols)?;
        let factors = region.floats(cast.scales(rows, cols))?;
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
        Tally { stats: CastStats::default(), non_finite: self.invert() }
    }

    fn scales_mut(&mut self) -> Quantized<'_> {
        Quantized { codes: self.codes, scales: self.factors }
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

impl<'a> Encoded<'a> {
    /// The cast of a `rows × cols` matrix as it was carved.
    pub(crate) fn read(region: &mut Read<'a>, cast: Cast, rows: usize, cols: usize) -> Result<Self> {
        let codes = region.bytes(rows * cols)?;
        let factors = region.floats(cast.scales(rows, cols))?;
        Ok(Self { cast, codes, factors, rows, cols })
    }

    /// A cast kept as plain slices.
    pub(crate) fn new(cast: Cast, codes: &'a [u8], factors: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { cast, codes, factors, rows, cols }
    }

    /// Contracted along its columns: wants one scale a row, or one.
    pub(crate) fn by_rows(self) -> (Operand<'a>, Epilogue<'a>) {
        debug_assert_ne!(self.cast.axis, ScaleAxis::Col, "scales along the contraction");
        (Operand::rows(self.matrix()), self.epilogue())
    }

    /// Contracted along its rows: wants one scale a column, or one.
    pub(crate) fn by_cols(self) -> (Operand<'a>, Epilogue<'a>) {
        debug_assert_ne!(self.cast.axis, ScaleAxis::Row, "scales along the contraction");
        (Operand::transposed(self.matrix()), self.epilogue())
    }

    fn matrix(self) -> Matrix<'a> {
        Matrix::new(elements(self.cast.format, self.codes), self.rows, self.cols)
    }

    fn epilogue(self) -> Epilogue<'a> {
        match self.cast.axis {
            ScaleAxis::Tensor => Epilogue::Tensor(self.factors[0]),
            ScaleAxis::Row | ScaleAxis::Col => Epilogue::PerRow(self.factors),
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
}

/// The tensor a tally belongs to: an index into the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Input = 0,
    Weight = 1,
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
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.stats.elements += other.stats.elements;
        self.stats.saturated += other.stats.saturated;
        self.stats.underflowed += other.stats.underflowed;
        self.non_finite += other.non_finite;
    }
}

/// Casts `x` as each of `wanted` asks; by row and by column in one read. Elements are examined only with
/// `telemetry`, scales always.
pub(crate) fn cast(
    cpu: &Cpu<'_>,
    x: Matrix<'_>,
    wanted: [Option<&mut EncodedMut<'_>>; 2],
    telemetry: bool,
) -> Tally {
    match wanted {
        [Some(first), Some(second)] if is_row_and_col(first.cast, second.cast) => {
            let mut stats = CastStats::default();
            let seen = telemetry.then_some(&mut stats);
            let Cast { format, rule, .. } = first.cast;
            cast_rows_and_cols(cpu, x, format, rule, first.scales_mut(), second.scales_mut(), seen);
            Tally { stats, non_finite: first.invert() + second.invert() }
        }
        wanted => {
            let mut tally = Tally::default();
            for out in wanted.into_iter().flatten() {
                tally += cast_one(cpu, x, out, telemetry);
            }
            tally
        }
    }
}

fn is_row_and_col(first: Cast, second: Cast) -> bool {
    first.axis == ScaleAxis::Row && second == Cast { axis: ScaleAxis::Col, ..first }
}

fn cast_one(cpu: &Cpu<'_>, x: Matrix<'_>, out: &mut EncodedMut<'_>, telemetry: bool) -> Tally {
    let mut stats = CastStats::default();
    let seen = telemetry.then_some(&mut stats);
    let Cast { format, axis, rule } = out.cast;
    match axis {
        ScaleAxis::Row => cast_rows(cpu, x, format, rule, out.scales_mut(), seen),
        ScaleAxis::Col => cast_cols(cpu, x, format, rule, out.scales_mut(), seen),
        ScaleAxis::Tensor => {
            let scale = rule.scale(amax_of(cpu, x), format);
            out.factors[0] = scale;
            cast_tensor(cpu, x, format, scale, out.codes, seen);
        }
    }
    Tally { stats, non_finite: out.invert() }
}
