//! Elementary functions with the same bits on every machine.
//!
//! The C library picks its variants by CPU, so its `exp` may differ between two machines; these are made of exactly
//! rounded operations only (add, multiply, fused multiply-add, divide, square root), in a fixed order. The f32 ones,
//! `ln_normal` and `sin_cos_f64` are branch-free and inline into loops that the compiler vectorises.

/// `eˣ`, within 2 units in the last place; infinity above 88.73, 0 below −103.97, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Cody and Waite: x = n·ln 2 + r with |r| ≤ ln 2 / 2; then a polynomial for eʳ and two scalings by powers of two,
    // so that subnormal results are reached without a subnormal factor.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2²³ leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -104.5 { -104.5 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_HIGH, clamped);
    let r = n.mul_add(-LN2_LOW, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    p = (p * r).mul_add(r, r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = p * scale(half) * scale(n - half);
    if x.is_nan() { x } else { y }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln x` in f64, within 1e-15 relative; −∞ for 0, NaN below 0.
pub fn ln_f64(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    if x < f64::MIN_POSITIVE { ln_normal(x * 18_014_398_509_481_984.0, -54.0) } else { ln_normal(x, 0.0) }
}

/// `ln x + shift·ln 2` for a finite `x` of at least [`f64::MIN_POSITIVE`].
#[inline(always)]
pub(crate) fn ln_normal(x: f64, shift: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // A whole number below 2⁵² in the low bits of 2⁵².
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let bits = x.to_bits();
    let exponent = f64::from_bits(WHOLE.to_bits() | bits >> 52) - (WHOLE + 1023.0) + shift;
    let m = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    let above = m > std::f64::consts::SQRT_2;
    let (m, exponent) = (if above { m * 0.5 } else { m }, if above { exponent + 1.0 } else { exponent });
    // ln m = 2·atanh(s) with s = (m − 1) / (m + 1), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 21.0;
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        p = p * z + 1.0 / odd;
    }
    exponent * LN2_HIGH + (2.0 * s + (2.0 * s * z * p + exponent * LN2_LOW))
}

/// `ln x` in f32, rounded from [`ln_f64`].
pub fn ln(x: f32) -> f32 {
    ln_f64(f64::from(x)) as f32
}

/// `(sin x, cos x)` in f64, within 1e-15 absolute for |x| up to 2³⁰.
#[inline(always)]
pub fn sin_cos_f64(x: f64) -> (f64, f64) {
    // x = n·π/2 + r, with π/2 in three parts and each product fused, so that only the last place of r suffers.
    const PARTS: [f64; 3] = [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_6e-21];
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    let r = PARTS.iter().fold(x, |r, part| (-n).mul_add(*part, r));
    let z = r * r;
    // Taylor's series: at |r| ≤ π/4 the first term left out is below 1e-17.
    let mut s = 1.0 / 355_687_428_096_000.0;
    for coefficient in [
        -1.0 / 1_307_674_368_000.0,
        1.0 / 6_227_020_800.0,
        -1.0 / 39_916_800.0,
        1.0 / 362_880.0,
        -1.0 / 5040.0,
        1.0 / 120.0,
        -1.0 / 6.0,
    ] {
        s = s * z + coefficient;
    }
    let sin = r + r * z * s;
    let mut c = 1.0 / 20_922_789_888_000.0;
    for coefficient in [
        -1.0 / 87_178_291_200.0,
        1.0 / 479_001_600.0,
        -1.0 / 3_628_800.0,
        1.0 / 40_320.0,
        -1.0 / 720.0,
        1.0 / 24.0,
        -0.5,
    ] {
        c = c * z + coefficient;
    }
    let cos = 1.0 + z * c;
    // Adding 1.5·2⁵² leaves n in the low bits: the quarter of a turn that x is in.
    let quarter = (n + 6_755_399_441_055_744.0).to_bits();
    let odd = quarter & 1 == 1;
    let (sin, cos) = (if odd { cos } else { sin }, if odd { sin } else { cos });
    let negative = |x: f64, quarter: u64| f64::from_bits(x.to_bits() ^ (quarter & 2) << 62);
    (negative(sin, quarter), negative(cos, quarter.wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for i in 0..2_000_000_u32 {
            let x = -87.0 + 175.5 * (i as f32 / 2_000_000.0);
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst} units");
    }

    #[test]
    fn exp_of_special_values() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-104.1), 0.0);
        assert!(exp(-100.0) > 0.0 && exp(-100.0).is_subnormal());
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn ln_and_sin_cos_agree_with_the_c_library() {
        for i in 1..200_000_u32 {
            let x = f64::from(i) * 0.037;
            assert!((ln_f64(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1.0), "ln {x}");
            let (s, c) = sin_cos_f64(x);
            assert!((s - x.sin()).abs() < 2e-15 && (c - x.cos()).abs() < 2e-15, "sin, cos {x}");
        }
        for x in [5e-324, 1e-310, 1e-300, 1e300] {
            assert!((ln_f64(x) - x.ln()).abs() <= 1e-15 * x.ln().abs(), "ln {x}");
        }
        for x in [1e6, 123_456_789.0, 1_073_741_823.5, -7.25] {
            let (s, c) = sin_cos_f64(x);
            assert!((s - x.sin()).abs() < 1e-13 && (c - x.cos()).abs() < 1e-13, "sin, cos {x}");
        }
        assert_eq!(ln_f64(1.0), 0.0);
        assert_eq!(ln_f64(0.0), f64::NEG_INFINITY);
        assert!(ln_f64(-1.0).is_nan());
    }
}
