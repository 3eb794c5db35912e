//! What is asked: one product, with everything that a plan is made from.

use std::fmt;

use fp8flow_kernels::{Fp8, Store};

/// Element type of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// FP8 codes.
    Fp8(Fp8),
    /// bfloat16.
    Bf16,
    /// 32-bit floats, multiplied as such: never as TF32.
    F32,
}

impl Format {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Fp8(_) => 1,
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp8(format) => format.name(),
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// Whether it has 8 bits.
    pub const fn is_fp8(self) -> bool {
        matches!(self, Self::Fp8(_))
    }
}

/// Element type of a result; sums are f32 and rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// bfloat16.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl Output {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// How an operand of `rows × k` elements lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Row after row, contiguous along the contraction.
    Rows,
    /// `k` rows of `rows` elements: contiguous across the contraction.
    Transposed,
}

/// What an operand's elements are multiplied by: f32 on the card, reciprocals of the scales of a cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factors {
    /// Nothing.
    One,
    /// One factor.
    Tensor,
    /// One for each row of the operand.
    PerRow,
    /// One for 128 elements of a row.
    Block1x128,
    /// One for 128 rows by 128 elements.
    Block128x128,
}

impl Factors {
    /// How many there are, for an operand of `rows × k`.
    pub const fn count(self, rows: usize, k: usize) -> usize {
        let blocks = k.div_ceil(128);
        match self {
            Self::One => 0,
            Self::Tensor => 1,
            Self::PerRow => rows,
            Self::Block1x128 => rows * blocks,
            Self::Block128x128 => rows.div_ceil(128) * blocks.next_multiple_of(4),
        }
    }

    /// Which of them is that of element `(row, step)`: blocks of 128 lie one after another for all rows, those of
    /// 128 × 128 along the contraction, padded to fours.
    pub const fn index(self, row: usize, step: usize, rows: usize, k: usize) -> usize {
        match self {
            Self::One | Self::Tensor => 0,
            Self::PerRow => row,
            Self::Block1x128 => step / 128 * rows + row,
            Self::Block128x128 => row / 128 * k.div_ceil(128).next_multiple_of(4) + step / 128,
        }
    }

    /// Whether each is for a block along the contraction.
    pub const fn are_blocks(self) -> bool {
        matches!(self, Self::Block1x128 | Self::Block128x128)
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "no factors",
            Self::Tensor => "one factor",
            Self::PerRow => "a factor a row",
            Self::Block1x128 => "a factor for 1×128",
            Self::Block128x128 => "a factor for 128×128",
        }
    }
}

/// One side of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Element type.
    pub format: Format,
    /// How it lies in memory.
    pub order: Order,
    /// Elements from one line of memory to the next.
    pub stride: usize,
    /// What it is multiplied by.
    pub factors: Factors,
}

impl Operand {
    /// Row after row, `stride` elements apart.
    pub const fn rows(format: Format, stride: usize) -> Self {
        Self { format, order: Order::Rows, stride, factors: Factors::One }
    }

    /// A step of the contraction after another, `stride` elements apart.
    pub const fn transposed(format: Format, stride: usize) -> Self {
        Self { format, order: Order::Transposed, stride, factors: Factors::One }
    }

    /// The same with `factors`.
    #[must_use]
    pub const fn times(self, factors: Factors) -> Self {
        Self { factors, ..self }
    }

    /// Elements from its first to its last, for `rows × k`.
    pub const fn elements(&self, rows: usize, k: usize) -> usize {
        let (lines, width) = match self.order {
            Order::Rows => (rows, k),
            Order::Transposed => (k, rows),
        };
        if lines == 0 || width == 0 { 0 } else { (lines - 1) * self.stride + width }
    }
}

/// `d[m,n] (+)= Σ_k a[m,k] · b[n,k]`, each element times its factor, with f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of `d` and `a`.
    pub m: usize,
    /// Columns of `d`, rows of `b`.
    pub n: usize,
    /// Length of the contraction.
    pub k: usize,
    /// The left side: activations or gradients.
    pub a: Operand,
    /// The right side: weights, in fprop and dgrad.
    pub b: Operand,
    /// Element type of `d`.
    pub output: Output,
    /// Elements from one row of `d` to the next.
    pub stride: usize,
    /// Whether `d` is added to.
    pub store: Store,
    /// Whether FP8 products may be summed with the fewer bits that tensor cores keep, over all of `k`; else every 128
    /// of `k` are added in f32. It means nothing for other formats, nor with factors for blocks of 128.
    pub fast: bool,
}

impl Product {
    /// The product of shape `[m, n, k]` into dense rows, which it overwrites, with exact sums.
    pub const fn new([m, n, k]: [usize; 3], a: Operand, b: Operand, output: Output) -> Self {
        Self { m, n, k, a, b, output, stride: n, store: Store::Overwrite, fast: false }
    }

    /// The same, added to `d`.
    #[must_use]
    pub const fn accumulated(self) -> Self {
        Self { store: Store::Accumulate, ..self }
    }

    /// The same with fast sums.
    #[must_use]
    pub const fn fast(self) -> Self {
        Self { fast: true, ..self }
    }

    /// The same into rows that are `stride` elements apart.
    #[must_use]
    pub const fn into_rows(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Multiplications and additions.
    pub const fn flops(&self) -> u64 {
        2 * self.m as u64 * self.n as u64 * self.k as u64
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lies = match self.order {
            Order::Rows => "rows",
            Order::Transposed => "transposed",
        };
        write!(f, "{} {lies} of {} with {}", self.format.name(), self.stride, self.factors.name())
    }
}

/// Tells all of it: two products are written alike only if they are the same.
impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { m, n, k, a, b, output, stride, store, fast } = self;
        let store = match store {
            Store::Overwrite => "into",
            Store::Accumulate => "added to",
        };
        let sums = if *fast { "fast" } else { "exact" };
        write!(f, "{m}×{n}×{k}: {a} by {b} {store} {} rows of {stride}, {sums} sums", output.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E4M3: Format = Format::Fp8(Fp8::E4m3);

    #[test]
    fn factors_of_blocks_lie_as_cublaslt_reads_them() {
        let (rows, k) = (256, 640);
        assert_eq!(Factors::Block1x128.count(rows, k), 256 * 5);
        assert_eq!(Factors::Block1x128.index(3, 300, rows, k), 2 * 256 + 3);
        assert_eq!(Factors::Block128x128.count(rows, k), 2 * 8);
        assert_eq!(Factors::Block128x128.index(200, 639, rows, k), 8 + 4);
        assert_eq!((Factors::PerRow.count(rows, k), Factors::PerRow.index(7, 9, rows, k)), (256, 7));
    }

    #[test]
    fn a_product_is_told_by_its_text() {
        let operand = Operand::rows(E4M3, 64).times(Factors::Tensor);
        let product = Product::new([16, 32, 48], operand, operand, Output::Bf16);
        let texts = [
            product,
            product.accumulated(),
            product.fast(),
            product.into_rows(64),
            Product { a: Operand { factors: Factors::One, ..operand }, ..product },
            Product { b: Operand { order: Order::Transposed, ..operand }, ..product },
        ]
        .map(|product| product.to_string());
        assert_eq!(
            texts[0],
            "16×32×48: e4m3 rows of 64 with one factor by e4m3 rows of 64 with one factor into bf16 rows of 32, exact sums"
        );
        assert!(texts.iter().enumerate().all(|(i, text)| !texts[..i].contains(text)), "{texts:?}");
    }

    #[test]
    fn a_padded_operand_ends_with_its_last_row() {
        assert_eq!(Operand::rows(E4M3, 64).elements(3, 48), 2 * 64 + 48);
        assert_eq!(Operand::transposed(Format::Bf16, 64).elements(48, 3), 2 * 64 + 48);
        assert_eq!(Operand::rows(E4M3, 64).elements(0, 48), 0);
    }
}
