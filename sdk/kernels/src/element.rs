//! Elements as f32 arithmetic sees them.

use half::bf16;

use crate::{Elements, ElementsMut};

/// A floating-point element: widened exactly, rounded once, at the store.
pub trait Element: bytemuck::Pod + Default + Send + Sync {
    /// The same number in f32.
    fn widen(self) -> f32;

    /// The nearest element, ties to even. Every NaN becomes the positive quiet one: sign and payload of a NaN depend
    /// on the instructions that made it, and so would differ from path to path.
    fn narrow(x: f32) -> Self;

    /// A slice of them, to read.
    fn elements(x: &[Self]) -> Elements<'_>;

    /// A slice of them, to write.
    fn elements_mut(x: &mut [Self]) -> ElementsMut<'_>;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        if x.is_nan() { Self::NAN } else { x }
    }

    fn elements(x: &[Self]) -> Elements<'_> {
        Elements::F32(x)
    }

    fn elements_mut(x: &mut [Self]) -> ElementsMut<'_> {
        ElementsMut::F32(x)
    }
}

// `half`'s conversions branch on NaN; these become vectors.
impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Self::from_bits(if x.is_nan() { Self::NAN.to_bits() } else { rounded as u16 })
    }

    fn elements(x: &[Self]) -> Elements<'_> {
        Elements::Bf16(x)
    }

    fn elements_mut(x: &mut [Self]) -> ElementsMut<'_> {
        ElementsMut::Bf16(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_number_survives_widening_and_narrowing() {
        for bits in 0..=u16::MAX {
            let x = bf16::from_bits(bits);
            let back = bf16::narrow(x.widen());
            assert_eq!(back.to_bits(), if x.is_nan() { bf16::NAN.to_bits() } else { bits });
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        for bits in (0..=u32::MAX).step_by(9973) {
            let x = f32::from_bits(bits);
            let expected = if x.is_nan() { bf16::NAN } else { bf16::from_f32(x) };
            assert_eq!(bf16::narrow(x).to_bits(), expected.to_bits(), "{bits:#x}");
        }
    }
}
