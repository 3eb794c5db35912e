//! What is cast, and what is wanted of it.

use std::fmt;

use fp8flow_kernels::Fp8;
use fp8flow_kernels::scale::ScaleRule;

/// Rows and columns of a block.
pub(super) const BLOCK: usize = 128;

/// What numbers of columns are a multiple of: FP8 is read 16 bytes at a time.
const ALIGNED: usize = 16;

/// Type of the elements to be cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// bfloat16.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl Element {
    /// The name in entry points.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A matrix on the card, row after row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it starts: a multiple of 16.
    pub address: u64,
    /// Type of its elements.
    pub element: Element,
    /// M.
    pub rows: usize,
    /// K, a multiple of 16.
    pub cols: usize,
}

/// How codes lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As the matrix does, `[padded M, K]`: contracted along K.
    Rows,
    /// Turned over, `[K, padded M]`: contracted along M.
    Turned,
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All.
    Tensor,
    /// Those of a row.
    Row,
    /// Those of a column.
    Col,
    /// 128 of a row.
    RowBlocks,
    /// 128 of a column.
    ColBlocks,
    /// 128 × 128.
    Squares,
}

impl Granularity {
    /// Blocks of these sides, if the card has them: 1 × 128, 128 × 1, 128 × 128.
    pub const fn blocks(rows: usize, cols: usize) -> Option<Self> {
        match (rows, cols) {
            (1, BLOCK) => Some(Self::RowBlocks),
            (BLOCK, 1) => Some(Self::ColBlocks),
            (BLOCK, BLOCK) => Some(Self::Squares),
            _ => None,
        }
    }

    /// Whether codes of this layout can be multiplied: scales must not change along the contraction, but in blocks.
    pub const fn serves(self, layout: Layout) -> bool {
        match self {
            Self::Tensor | Self::Squares => true,
            Self::Row | Self::RowBlocks => matches!(layout, Layout::Rows),
            Self::Col | Self::ColBlocks => matches!(layout, Layout::Turned),
        }
    }

    /// How many factors a layout of a `rows × cols` matrix has.
    pub const fn factors(self, layout: Layout, rows: usize, cols: usize) -> usize {
        let (down, across) = (rows.div_ceil(BLOCK), cols.div_ceil(BLOCK));
        match (self, layout) {
            (Self::Tensor, _) => 1,
            (Self::Row, _) => rows,
            (Self::Col, _) => cols,
            (Self::RowBlocks, _) => across * rows.next_multiple_of(4),
            (Self::ColBlocks, _) => down * cols,
            (Self::Squares, Layout::Rows) => down * across.next_multiple_of(4),
            (Self::Squares, Layout::Turned) => across * down.next_multiple_of(4),
        }
    }

    /// Which of them is that of element `(row, col)` of a `rows × cols` matrix.
    ///
    /// For blocks along the contraction, all rows of the operand follow each other, padded to fours; for squares, the
    /// blocks of the contraction, padded to fours. What fills up squares is not written, and not read.
    pub const fn factor(self, layout: Layout, [row, col]: [usize; 2], [rows, cols]: [usize; 2]) -> usize {
        let (down, across) = (rows.div_ceil(BLOCK), cols.div_ceil(BLOCK));
        match (self, layout) {
            (Self::Tensor, _) => 0,
            (Self::Row, _) => row,
            (Self::Col, _) => col,
            (Self::RowBlocks, _) => col / BLOCK * rows.next_multiple_of(4) + row,
            (Self::ColBlocks, _) => row / BLOCK * cols + col,
            (Self::Squares, Layout::Rows) => row / BLOCK * across.next_multiple_of(4) + col / BLOCK,
            (Self::Squares, Layout::Turned) => col / BLOCK * down.next_multiple_of(4) + row / BLOCK,
        }
    }

    /// Bytes of the maxima that a cast of a `rows × cols` matrix with current scales is made from. With a scale a column there is room for
    /// the maxima of rows too, which are found beside those of columns if both are wanted.
    pub const fn space(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => size_of::<f32>(),
            Self::Col => (cols + rows) * size_of::<f32>(),
            Self::Row | Self::RowBlocks | Self::ColBlocks | Self::Squares => 0,
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensor => "a scale for all",
            Self::Row => "a scale a row",
            Self::Col => "a scale a column",
            Self::RowBlocks => "a scale for 1×128",
            Self::ColBlocks => "a scale for 128×1",
            Self::Squares => "a scale for 128×128",
        })
    }
}

/// Where scales come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From maxima of the matrix itself.
    Current {
        /// How.
        rule: ScaleRule,
        /// Where there are [`Granularity::space`] bytes, zeros, for the maxima: [`Zeros`](super::Zeros) are. Of a cast with
        /// one scale they hold the maximum afterwards, a float.
        space: u64,
    },
    /// There is one for all, made before: a delayed scale.
    Given {
        /// It.
        scale: f32,
        /// Where the absolute maximum of the matrix goes, a float; NaN is left out.
        amax: u64,
    },
}

/// A layout to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    /// Where [`codes`] bytes go; a multiple of 16.
    pub codes: u64,
    /// Where [`Granularity::factors`] floats go; a multiple of 16 for blocks, of 4 else.
    pub factors: u64,
}

/// A cast to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The format of the codes.
    pub format: Fp8,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Where the scales come from.
    pub scale: Scale,
    /// Codes as the matrix lies, if wanted.
    pub rows: Option<Face>,
    /// Codes turned over, if wanted.
    pub turned: Option<Face>,
}

/// Rows that codes of a matrix of `rows` rows have: the next multiple of 16.
pub const fn padded(rows: usize) -> usize {
    rows.next_multiple_of(ALIGNED)
}

/// Bytes of the codes of a `rows × cols` matrix, in either layout.
pub const fn codes(rows: usize, cols: usize) -> usize {
    padded(rows) * cols
}

/// What casts have seen, as it lies on the card; they add to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Finite elements whose scaled value lies beyond the largest finite code.
    pub saturated: u64,
    /// Non-zero elements whose code is zero.
    pub underflowed: u64,
    /// Scales, or noted maxima, that came from an infinity or a NaN.
    pub non_finite: u64,
}

impl Counters {
    /// Bytes of them on the card.
    pub const BYTES: usize = size_of::<Self>();

    /// As they were read from the card.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let [saturated, underflowed, non_finite] = [0, 1, 2].map(|i| u64::from_le_bytes(words[i]));
        Self { saturated, underflowed, non_finite }
    }
}

/// Why `target` cannot be made of `input`, if so.
pub(super) fn obstacle(input: &Input, target: &Target) -> Option<String> {
    let Target { granularity, scale, .. } = *target;
    if !input.cols.is_multiple_of(ALIGNED) {
        let cols = input.cols;
        return Some(format!("{cols} columns are no multiple of 16; leave this layer in high precision"));
    }
    if matches!(scale, Scale::Given { .. }) && granularity != Granularity::Tensor {
        return Some(format!("{granularity} is never given; let it come from the matrix"));
    }
    let alignment = match granularity {
        Granularity::Tensor | Granularity::Row | Granularity::Col => 4,
        Granularity::RowBlocks | Granularity::ColBlocks | Granularity::Squares => 16,
    };
    let aligned = |what: &str, address: u64, to: u64| {
        (address == 0 || !address.is_multiple_of(to))
            .then(|| format!("{what} lie at {address:#x}, no multiple of {to}"))
    };
    let faces = [(Layout::Rows, target.rows), (Layout::Turned, target.turned)];
    faces
        .into_iter()
        .filter_map(|(layout, face)| face.map(|face| (layout, face)))
        .find_map(|(layout, face)| {
            if !granularity.serves(layout) {
                let lines = match layout {
                    Layout::Rows => "columns",
                    Layout::Turned => "rows",
                };
                return Some(format!("{granularity} cannot be undone after a sum over {lines}"));
            }
            aligned("codes", face.codes, 16).or_else(|| aligned("factors", face.factors, alignment))
        })
        .or_else(|| aligned("elements", input.address, 16))
}
