//! From an absolute maximum to the factor that maps a tensor into an FP8 format.

use crate::Fp8;

/// The smallest absolute maximum that torchao makes a scale from (its `EPS`).
pub const AMAX_FLOOR: f64 = 1e-12;

/// How a scale is made from an absolute maximum, and what a NaN does to that maximum.
///
/// The first two are torchao's: a NaN makes the maximum NaN, the scale and so all codes. The finite two are the current
/// scaling of Transformer Engine (`compute_scale_from_amax` in its `common/recipe/recipe_common.cuh`): the maximum
/// passes over NaNs, as CUDA's `fmaxf` does, and a scale is always a positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleRule {
    /// `f32(max / max(f64(amax), 1e-12))`. NaN gives NaN, infinity gives 0.
    Linear,
    /// The same, rounded down to a power of two by clearing the mantissa.
    PowerOfTwo,
    /// `max / amax` in f32, [`f32::MAX`] where that overflows; 1 if `amax` is 0, infinite or NaN.
    FiniteLinear,
    /// The same, rounded down to a power of two by clearing the mantissa.
    FinitePowerOfTwo,
}

/// What a NaN does to an absolute maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nan {
    /// It is the maximum.
    Wins,
    /// It is passed over.
    Ignored,
}

impl ScaleRule {
    /// All rules.
    pub const ALL: [Self; 4] = [Self::Linear, Self::PowerOfTwo, Self::FiniteLinear, Self::FinitePowerOfTwo];

    /// The name used in reports and across the plugin border.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "amax_linear",
            Self::PowerOfTwo => "amax_pow2",
            Self::FiniteLinear => "finite_linear",
            Self::FinitePowerOfTwo => "finite_pow2",
        }
    }

    /// The factor `s` with `q = saturate(x · s)`.
    ///
    /// [`ScaleRule::PowerOfTwo`] equals, for every bf16 amax, torchao's `exp2(floor(log2(s)))` (which for some f32
    /// values rounds up to the next power of two and then saturates the maximum itself; here it never does).
    #[inline]
    pub fn scale(self, amax: f32, format: Fp8) -> f32 {
        let scale = match self {
            Self::Linear | Self::PowerOfTwo => {
                let amax = f64::from(amax);
                // `f64::max` would drop a NaN.
                let floored = if amax < AMAX_FLOOR { AMAX_FLOOR } else { amax };
                (f64::from(format.max()) / floored) as f32
            }
            Self::FiniteLinear | Self::FinitePowerOfTwo if amax == 0.0 || !amax.is_finite() => 1.0,
            Self::FiniteLinear | Self::FinitePowerOfTwo => (format.max() / amax).min(f32::MAX),
        };
        match self {
            Self::Linear | Self::FiniteLinear => scale,
            Self::PowerOfTwo | Self::FinitePowerOfTwo if scale.is_nan() => scale,
            Self::PowerOfTwo | Self::FinitePowerOfTwo => f32::from_bits(scale.to_bits() & 0x7f80_0000),
        }
    }

    /// What a NaN does to the maximum that the rule wants.
    pub(crate) const fn nan(self) -> Nan {
        match self {
            Self::Linear | Self::PowerOfTwo => Nan::Wins,
            Self::FiniteLinear | Self::FinitePowerOfTwo => Nan::Ignored,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];

    #[test]
    fn a_finite_scale_of_zero_infinity_or_nan_is_one() {
        for rule in [ScaleRule::FiniteLinear, ScaleRule::FinitePowerOfTwo] {
            for format in FORMATS {
                for amax in [0.0, f32::INFINITY, f32::NAN, -f32::NAN] {
                    assert_eq!(rule.scale(amax, format), 1.0, "{rule:?} {format:?} {amax}");
                }
            }
        }
    }

    #[test]
    fn a_finite_scale_is_the_rounded_quotient_and_at_most_the_largest_number() {
        let scale = |amax| ScaleRule::FiniteLinear.scale(amax, Fp8::E4m3);
        assert_eq!([2.0, 4.0, 0.5, 448.0, 3.0].map(scale), [224.0, 112.0, 896.0, 1.0, 149.333_33]);
        // The smallest number whose quotient is one of f32, and its neighbour below.
        let least = 448.0 / f32::MAX;
        assert!(scale(least.next_up()) < f32::MAX);
        assert_eq!([least.next_down(), 1e-38, f32::from_bits(1)].map(scale), [f32::MAX; 3]);
        assert_eq!(scale(f32::MAX), 448.0 / f32::MAX);
    }

    #[test]
    fn a_finite_power_of_two_is_the_one_below_the_finite_scale() {
        let scale = |amax| ScaleRule::FinitePowerOfTwo.scale(amax, Fp8::E4m3);
        assert_eq!([448.0, 449.0, 447.0, 224.0, 3.5, 3.6].map(scale), [1.0, 0.5, 1.0, 2.0, 128.0, 64.0]);
        assert_eq!(scale(f32::from_bits(1)), 2.0_f32.powi(127));
        let e5m2 = |amax| ScaleRule::FinitePowerOfTwo.scale(amax, Fp8::E5m2);
        assert_eq!([57344.0, 57345.0, 1.0].map(e5m2), [1.0, 0.5, 32768.0]);
    }

    #[test]
    fn names_are_distinct() {
        let mut names = ScaleRule::ALL.map(ScaleRule::name);
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn finite_scales_are_positive_numbers_and_keep_their_maximum_within_the_format(bits: u32, e5m2: bool) {
            let (amax, format) = (f32::from_bits(bits & 0x7fff_ffff), FORMATS[usize::from(e5m2)]);
            let linear = ScaleRule::FiniteLinear.scale(amax, format);
            let power = ScaleRule::FinitePowerOfTwo.scale(amax, format);
            for scale in [linear, power] {
                prop_assert!(scale.is_normal() && scale > 0.0, "{}", scale);
            }
            prop_assert!(power <= linear && linear < 2.0 * power || linear == f32::MAX);
            prop_assert_eq!(power.to_bits() & 0x007f_ffff, 0);
            if amax.is_finite() {
                prop_assert!(amax * power <= format.max());
                // Two roundings may leave the linear one a unit too far.
                prop_assert!(amax * linear <= format.max().next_up());
            }
        }
    }
}
