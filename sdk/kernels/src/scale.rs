//! From an absolute maximum to the factor that maps a tensor into an FP8 format.

use crate::Fp8;

/// The smallest absolute maximum that a scale is made from (torchao's `EPS`).
pub const AMAX_FLOOR: f64 = 1e-12;

/// How a scale is made from an absolute maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleRule {
    /// `f32(max / max(f64(amax), 1e-12))`.
    Linear,
    /// The same, rounded down to a power of two by clearing the mantissa.
    PowerOfTwo,
}

impl ScaleRule {
    /// The factor `s` with `q = saturate(x · s)`. NaN gives NaN, infinity gives 0.
    ///
    /// Equal, for every bf16 amax, to torchao's `exp2(floor(log2(s)))` (which for some f32 values rounds up to the
    /// next power of two and then saturates the maximum itself; here it never does).
    pub fn scale(self, amax: f32, format: Fp8) -> f32 {
        let amax = f64::from(amax);
        // `f64::max` would drop a NaN.
        let floored = if amax < AMAX_FLOOR { AMAX_FLOOR } else { amax };
        let scale = (f64::from(format.max()) / floored) as f32;
        match self {
            Self::Linear => scale,
            Self::PowerOfTwo if scale.is_nan() => scale,
            Self::PowerOfTwo => f32::from_bits(scale.to_bits() & 0x7f80_0000),
        }
    }
}
