//! Which way elements may be encoded: all products at once by hardware, or one for one as `Fp8::encode` says.
//!
//! F16C rounds f32 to half precision, whose subnormals begin where those of E5M2 do, and, with numbers scaled by
//! 2⁻⁸, where those of E4M3 do. There the bits of a half are the bits of a code with more places behind it, down to the
//! smallest. What is left is to round once, not twice:
//!
//! * A bf16 number times a power of two has 8 significant bits, which a half holds, unless it is so small that its
//!   code is 0 or 1. Multiplied with 1 + 2⁻¹² more, an exact half rounds to itself, and one that lies in the
//!   middle between two halves, upwards, away from the middle between two codes. So the half can be rounded to a code.
//! * Any other product is rounded to a code's value first, in f32, by adding and subtracting a number whose last place
//!   is the spacing of the codes. A half holds each such value.
//!
//! Neither way saturates or knows NaN: they are for elements whose maximum is known.

use crate::Fp8;

/// How to encode some elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Any elements, any scale.
    Any,
    /// bf16 numbers, none NaN, whose products lie within the format.
    Rounded,
    /// Those whose scale is a power of two besides.
    Exact,
}

impl Way {
    /// For products that all [`hold`](holds), of scales that all are [powers of two](is_power), or not.
    pub(super) const fn of(held: bool, powers: bool) -> Self {
        match (held, powers) {
            (false, _) => Self::Any,
            (true, false) => Self::Rounded,
            (true, true) => Self::Exact,
        }
    }

    /// What `scale` is multiplied with to make the factor that aligns the format with half precision.
    pub(super) const fn alignment(self, format: Fp8) -> f32 {
        let aligned = match format {
            Fp8::E4m3 => 1.0 / 256.0,
            Fp8::E5m2 => 1.0,
        };
        match self {
            Self::Exact => aligned * (1.0 + 1.0 / 4096.0),
            Self::Any | Self::Rounded => aligned,
        }
    }
}

/// Whether no product of numbers up to `top`, none of them NaN, lies beyond the format, and aligning the scale does not
/// round it. A linear scale and the product of the maximum may both have been rounded up: a little beyond is well.
#[inline(always)]
pub(super) fn holds(format: Fp8, top: f32, scale: f32) -> bool {
    let limit = format.max() * (1.0 + 1.0 / 64.0);
    let smallest = f32::MIN_POSITIVE / Way::Rounded.alignment(format);
    smallest <= scale && scale <= f32::MAX && top * scale <= limit
}

/// Whether a positive normal number is a power of two.
#[inline(always)]
pub(super) fn is_power(scale: f32) -> bool {
    scale.to_bits().trailing_zeros() >= 23
}
