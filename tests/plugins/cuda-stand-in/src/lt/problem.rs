//! Which products there are: the rules of cuBLASLt 12.9 on compute capability 8.9 and 9.0.

use std::ffi::c_int;

use super::number::Number;
use super::{INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::cards::Card;

/// How the scales of an operand are laid out: `cublasLtMatmulMatrixScale_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// One for the tensor.
    #[default]
    Scalar,
    /// One for each row of A, each column of B.
    Outer,
    /// One for 128 elements along k.
    Vector,
    /// One for 128 x 128 elements.
    Block,
}

/// `cublasLtMatmulDesc_t`.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    compute: c_int,
    /// A and B.
    pub(super) transposed: [bool; 2],
    /// Where the scales of A and B lie; 0 where none were given.
    pub(super) scales: [usize; 2],
    modes: [Mode; 2],
    pub(super) fast: bool,
}

impl Descriptor {
    pub(super) fn new(compute: c_int, scale: c_int) -> Result<Self, Status> {
        // Sums in f32, pedantic or not, or with operands of tf32; factors in f32.
        if ![68, 69, 77].contains(&compute) || scale != 0 {
            return Err(NOT_SUPPORTED);
        }
        Ok(Self { compute, transposed: [false; 2], scales: [0; 2], modes: [Mode::Scalar; 2], fast: false })
    }

    pub(super) fn set_mode(&mut self, operand: usize, mode: c_int) -> Result<(), Status> {
        self.modes[operand] = match mode {
            0 => Mode::Scalar,
            3 => Mode::Outer,
            4 => Mode::Vector,
            5 => Mode::Block,
            // For CC 10.0 and above.
            1 | 2 => return Err(NOT_SUPPORTED),
            _ => return Err(INVALID_VALUE),
        };
        Ok(())
    }
}

/// `cublasLtMatrixLayout_t`: columns one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) number: Number,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) leading: usize,
    pub(super) batches: usize,
    /// Elements from one matrix to the next.
    pub(super) stride: usize,
}

impl Layout {
    pub(super) fn new(number: c_int, rows: usize, columns: usize, leading: i64) -> Result<Self, Status> {
        let number = Number::from_cuda(number).ok_or(NOT_SUPPORTED)?;
        let leading = usize::try_from(leading).map_err(|_| INVALID_VALUE)?;
        if leading < rows {
            return Err(INVALID_VALUE);
        }
        Ok(Self { number, rows, columns, leading, batches: 1, stride: 0 })
    }

    /// Bytes from the first element to the end of the last.
    pub(super) fn bytes(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        ((self.batches - 1) * self.stride + (self.columns - 1) * self.leading + self.rows)
            * self.number.bytes()
    }
}

/// `d = alpha * scale * op(a) op(b) + beta * c`, with d of m rows and n columns.
pub(super) struct Problem {
    pub(super) descriptor: Descriptor,
    pub(super) a: Layout,
    pub(super) b: Layout,
    pub(super) c: Layout,
    pub(super) d: Layout,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) modes: [Mode; 2],
    /// Whether it may be added to what there is; an algorithm is proposed either way.
    pub(super) adds: bool,
}

impl Problem {
    pub(super) fn new(
        descriptor: Descriptor,
        a: Layout,
        b: Layout,
        c: Layout,
        d: Layout,
        card: &Card,
    ) -> Result<Self, Status> {
        let turned = |layout: &Layout, turned: bool| {
            if turned { (layout.columns, layout.rows) } else { (layout.rows, layout.columns) }
        };
        let ((m, k), (k_b, n)) = (turned(&a, descriptor.transposed[0]), turned(&b, descriptor.transposed[1]));
        if k != k_b || (d.rows, d.columns) != (m, n) || (c.rows, c.columns) != (m, n) {
            return Err(INVALID_VALUE);
        }
        if [a, b, c].iter().any(|layout| layout.batches != d.batches) || [m, n, k].contains(&0) {
            return Err(INVALID_VALUE);
        }
        let modes = descriptor.modes;
        let adds = card.adds_scaled_rows || modes != [Mode::Outer; 2];
        let problem = Self { descriptor, a, b, c, d, m, n, k, modes, adds };
        let supported = match (a.number, b.number) {
            (Number::Bf16, Number::Bf16) => {
                problem.is_unscaled() && problem.descriptor.compute != 77 && d.number.is_wide()
            }
            (Number::F32, Number::F32) => problem.is_unscaled() && d.number == Number::F32,
            (x, y) if x.is_fp8() && y.is_fp8() => problem.is_fp8_supported(card),
            _ => false,
        };
        if supported && c.number == d.number { Ok(problem) } else { Err(NOT_SUPPORTED) }
    }

    fn is_unscaled(&self) -> bool {
        self.descriptor.scales == [0; 2] && self.modes == [Mode::Scalar; 2]
    }

    fn is_fp8_supported(&self, card: &Card) -> bool {
        let hopper = (card.major, card.minor) == (9, 0);
        let scales = match self.modes {
            [Mode::Scalar, Mode::Scalar] => true,
            [Mode::Outer, Mode::Outer] => hopper,
            [Mode::Vector, Mode::Vector | Mode::Block] | [Mode::Block, Mode::Vector] => {
                hopper && !self.descriptor.fast && self.m.is_multiple_of(4) && self.n.is_multiple_of(4)
            }
            _ => false,
        };
        scales
            && (hopper || (card.major, card.minor) == (8, 9))
            && self.descriptor.compute == 68
            && self.descriptor.transposed == [true, false]
            && (self.a.number, self.b.number) != (Number::E5m2, Number::E5m2)
            && self.d.number.is_wide()
            && [self.m, self.k, self.a.leading, self.b.leading].iter().all(|n| n.is_multiple_of(16))
            && (self.d.leading * self.d.number.bytes()).is_multiple_of(16)
            && (self.c.leading * self.c.number.bytes()).is_multiple_of(16)
            && (self.d.batches == 1 || self.modes == [Mode::Scalar; 2])
    }

    /// How many scales A (0) or B (1) has, where it has several.
    pub(super) fn scale_count(&self, operand: usize) -> usize {
        let extent = [self.m, self.n][operand];
        let along_k = self.k.div_ceil(128);
        match self.modes[operand] {
            Mode::Scalar => 1,
            Mode::Outer => extent,
            Mode::Vector => extent * along_k,
            Mode::Block => extent.div_ceil(128) * along_k.next_multiple_of(4),
        }
    }

    /// Where the scale lies of row or column `i` and block `kb` along k.
    pub(super) fn scale_index(&self, operand: usize, i: usize, kb: usize) -> usize {
        let extent = [self.m, self.n][operand];
        match self.modes[operand] {
            Mode::Scalar => 0,
            Mode::Outer => i,
            Mode::Vector => kb * extent + i,
            Mode::Block => i / 128 * self.k.div_ceil(128).next_multiple_of(4) + kb,
        }
    }

    /// What an algorithm is for: everything but addresses and factors.
    pub(super) fn digest(&self) -> u64 {
        let Descriptor { compute, transposed, modes, fast, .. } = &self.descriptor;
        let text =
            format!("{compute} {transposed:?} {modes:?} {fast} {:?}", [self.a, self.b, self.c, self.d]);
        let hash = blake3::hash(text.as_bytes());
        hash.as_bytes()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
