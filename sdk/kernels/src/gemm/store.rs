//! The end of a sum: two factors, the old output if asked, one rounding.

use half::bf16;

use super::{Epilogue, Store};

/// An element of an output.
pub(super) trait Rounded: Copy + Send {
    fn widen(self) -> f32;
    /// The nearest element, ties to even; every NaN gives the same one.
    fn nearest(x: f32) -> Self;
}

impl Rounded for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        if x.is_nan() { Self::NAN } else { x }
    }
}

impl Rounded for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // `half`'s conversion branches on NaN; this one is a select and vectorises.
    #[inline(always)]
    fn nearest(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Self::from_bits(if x.is_nan() { Self::NAN.to_bits() } else { rounded as u16 })
    }
}

/// What turns the sums of a block of the output into elements; counts rows and columns as the output does.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) scale_a: Epilogue<'a>,
    pub(super) scale_b: Epilogue<'a>,
    pub(super) store: Store,
}

impl Finish<'_> {
    /// Writes `sums` to `out`, a part of row `row` that starts at column `col`.
    #[inline(always)]
    pub(super) fn row<T: Rounded>(self, sums: &[f32], row: usize, col: usize, out: &mut [T]) {
        // A factor of one changes no bit of a number.
        let a = self.scale_a.apply(row, 1.0);
        match self.scale_b {
            Epilogue::One => self.scaled(sums, a, std::iter::repeat(1.0), out),
            Epilogue::Tensor(b) => self.scaled(sums, a, std::iter::repeat(b), out),
            Epilogue::PerRow(b) => self.scaled(sums, a, b[col..].iter().copied(), out),
        }
    }

    #[inline(always)]
    fn scaled<T: Rounded>(self, sums: &[f32], a: f32, b: impl Iterator<Item = f32>, out: &mut [T]) {
        match self.store {
            Store::Overwrite => {
                for ((out, sum), b) in out.iter_mut().zip(sums).zip(b) {
                    *out = T::nearest(sum * a * b);
                }
            }
            Store::Accumulate => {
                for ((out, sum), b) in out.iter_mut().zip(sums).zip(b) {
                    *out = T::nearest(out.widen() + sum * a * b);
                }
            }
        }
    }
}
