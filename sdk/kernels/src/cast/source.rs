//! What a cast needs of the type it reads, beyond its values.

use half::bf16;

use crate::Element;

/// A type that casts read in vectors.
pub(super) trait Source: Element {
    /// The bits of `|x|`. As whole numbers they have the order of the values, NaN on top; in lanes as narrow as the
    /// elements a vector finds as many maxima as it holds elements.
    type Magnitude: Copy + Ord + Default + bytemuck::Pod + Send + Sync;

    /// The bits of infinity: those above are NaNs.
    const INFINITY: Self::Magnitude;

    /// `|x|`.
    fn magnitude(self) -> Self::Magnitude;

    /// The number that a magnitude is.
    fn value(magnitude: Self::Magnitude) -> f32;

    /// Whether [`Source::halves`] has them.
    const IS_BF16: bool;

    /// The elements, if they are bf16.
    fn halves(x: &[Self]) -> Option<&[bf16]>;
}

impl Source for f32 {
    type Magnitude = u32;

    const INFINITY: u32 = Self::INFINITY.to_bits();

    const IS_BF16: bool = false;

    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.to_bits() & 0x7fff_ffff
    }

    #[inline(always)]
    fn value(magnitude: u32) -> f32 {
        Self::from_bits(magnitude)
    }

    fn halves(_: &[Self]) -> Option<&[bf16]> {
        None
    }
}

impl Source for bf16 {
    // Baseline x86-64 has maxima of signed 16-bit numbers only.
    type Magnitude = i16;

    const INFINITY: i16 = Self::INFINITY.to_bits().cast_signed();

    const IS_BF16: bool = true;

    #[inline(always)]
    fn magnitude(self) -> i16 {
        (self.to_bits() & 0x7fff).cast_signed()
    }

    #[inline(always)]
    fn value(magnitude: i16) -> f32 {
        Self::from_bits(magnitude.cast_unsigned()).widen()
    }

    #[inline(always)]
    fn halves(x: &[Self]) -> Option<&[bf16]> {
        Some(x)
    }
}
