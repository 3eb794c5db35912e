//! The one step that every sum repeats, `sum ← x · y + sum` with a single rounding, in the forms that instruction
//! sets have for it.
//!
//! Baseline x86-64 has no fused multiply-add, and the C library's takes a call. Where the product is a number of f32
//! anyway, multiplying and then adding rounds only once too, and that holds for most of what is multiplied here: two
//! FP8 numbers have 4 bits each, two bf16 numbers 8, of the 24 that f32 keeps. What is left is the exponent.

use super::Operand;
use crate::{Elements, Fp8};

/// `x · y + sum`, rounded once.
pub(super) trait Step {
    fn step(x: f32, y: f32, sum: f32) -> f32;
}

/// The instruction.
pub(super) struct Fused;

impl Step for Fused {
    #[inline(always)]
    fn step(x: f32, y: f32, sum: f32) -> f32 {
        x.mul_add(y, sum)
    }
}

/// Two instructions, for products that are exact.
pub(super) struct Exact;

impl Step for Exact {
    #[inline(always)]
    fn step(x: f32, y: f32, sum: f32) -> f32 {
        x * y + sum
    }
}

/// In f64, for all others (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
/// rounding to odd", 2008): the product of two f32 is exact in f64; the sum is rounded to odd there, which leaves the
/// second rounding, to f32, as if it were the only one.
pub(super) struct Emulated;

impl Step for Emulated {
    #[inline(always)]
    fn step(x: f32, y: f32, sum: f32) -> f32 {
        let (product, addend) = (f64::from(x) * f64::from(y), f64::from(sum));
        let total = product + addend;
        // What the addition lost (Knuth's two-sum); NaN if the total is not finite.
        let part = total - product;
        let lost = (product - (total - part)) + (addend - part);
        // Towards zero, then the last bit set, unless nothing was lost.
        let inexact = u64::from(lost.abs() > 0.0);
        let away_from_zero = (lost.to_bits() ^ total.to_bits()) >> 63;
        f64::from_bits((total.to_bits() - (inexact & away_from_zero)) | inexact) as f32
    }
}

/// Whether every product of an element of `a` and one of `b` is exact in f32, so that [`Exact`] is a fused step.
///
/// Reads the elements where their type does not answer it, and all factors.
pub(super) fn products_are_exact(a: &Operand<'_>, b: &Operand<'_>) -> bool {
    let range = |operand: &Operand<'_>| {
        let range = Range::of(operand.elements)?;
        operand.grid.map_or(Some(range), |grid| range.times(grid.factors))
    };
    let (Some(a), Some(b)) = (range(a), range(b)) else { return false };
    a.lowest + b.lowest >= -149 && a.above + b.above <= 128
}

/// Where the bits of some numbers lie: all are multiples of `2^lowest` and below `2^above`, but for zeros, infinities
/// and NaNs, whose products any step gets right; and none has more than 12 significant bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    lowest: i32,
    above: i32,
}

impl Range {
    /// None if the numbers may have more bits.
    fn of(elements: Elements<'_>) -> Option<Self> {
        let of_format = |format: Fp8| Self {
            lowest: 1 - format.bias() - format.mantissa_bits() as i32,
            above: (format.max().to_bits() >> 23) as i32 - 126,
        };
        match elements {
            Elements::F32(_) => None,
            Elements::E4m3(_) => Some(of_format(Fp8::E4m3)),
            Elements::E5m2(_) => Some(of_format(Fp8::E5m2)),
            Elements::Bf16(elements) => {
                let mut range = Self { lowest: 0, above: 0 };
                for x in elements {
                    let magnitude = i32::from(x.to_bits() & 0x7fff);
                    if magnitude == 0 || magnitude >= 0x7f80 {
                        continue;
                    }
                    let exponent = (magnitude >> 7).max(1) - 127;
                    range.lowest = range.lowest.min(exponent - 7);
                    range.above = range.above.max(exponent + 1);
                }
                Some(range)
            }
        }
    }

    /// After multiplication with `factors`; none if one of them is a number other than a power of two.
    ///
    /// A product below the numbers of f32 loses bits but gains none, and one above them is an infinity.
    fn times(self, factors: &[f32]) -> Option<Self> {
        let mut range: Option<Self> = None;
        for factor in factors {
            let magnitude = factor.to_bits() & 0x7fff_ffff;
            if magnitude == 0 || magnitude >= 0x7f80_0000 {
                continue;
            }
            let exponent = match (magnitude >> 23, magnitude & 0x007f_ffff) {
                (0, mantissa) if mantissa.is_power_of_two() => mantissa.trailing_zeros() as i32 - 149,
                (exponent, 0) => exponent as i32 - 127,
                _ => return None,
            };
            let (lowest, above) = (self.lowest + exponent, self.above + exponent);
            let before = range.unwrap_or(Self { lowest, above });
            range = Some(Self { lowest: before.lowest.min(lowest), above: before.above.max(above) });
        }
        Some(range.unwrap_or(self))
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::{Grid, Matrix};

    fn exact(a: Elements<'_>, b: Elements<'_>) -> bool {
        let rows = |x: Elements<'_>| x.len();
        products_are_exact(
            &Operand::rows(Matrix::new(a, rows(a), 1)),
            &Operand::rows(Matrix::new(b, rows(b), 1)),
        )
    }

    #[test]
    fn products_of_fp8_numbers_are_always_exact() {
        for a in [Elements::E4m3(&[0]), Elements::E5m2(&[0])] {
            for b in [Elements::E4m3(&[0]), Elements::E5m2(&[0])] {
                assert!(exact(a, b));
            }
            assert!(!exact(a, Elements::F32(&[1.0])));
        }
    }

    #[test]
    fn products_of_bf16_numbers_are_exact_unless_they_may_leave_the_range_of_f32() {
        let ordinary = [1.0, -1e-4, 0.0, 3e8, f32::INFINITY, f32::NAN].map(bf16::from_f32);
        let big = [bf16::MAX];
        let small = [bf16::MIN_POSITIVE_SUBNORMAL];
        let [ordinary, big, small] = [&ordinary[..], &big, &small].map(Elements::Bf16);
        assert!(exact(ordinary, ordinary));
        assert!(exact(big, small));
        assert!(!exact(big, ordinary));
        assert!(!exact(small, ordinary));
        assert!(exact(ordinary, Elements::E5m2(&[0])));
        assert!(!exact(big, Elements::E4m3(&[0])));
        // The smallest E5M2 number is 2⁻¹⁶, the smallest bf16 number 2⁻¹³³, and 2⁻¹⁴⁹ the smallest f32 number.
        assert!(exact(small, Elements::E5m2(&[0])));
    }

    #[test]
    fn the_bound_is_where_bf16_products_cease_to_be_exact() {
        // All significands are full, so one step below the bound the last bit is lost.
        for exponent in -126..=127 {
            for other in [-126, -80, -9, 0, 9, 80, 127] {
                let full = |exponent: i32| bf16::from_bits((((exponent + 127) as u16) << 7) | 0x7f);
                let (x, y) = (full(exponent), full(other));
                let fits = f64::from(x.to_f32() * y.to_f32()) == x.to_f64() * y.to_f64();
                assert_eq!(exact(Elements::Bf16(&[x]), Elements::Bf16(&[y])), fits, "{exponent} {other}");
            }
        }
    }

    #[test]
    fn powers_of_two_on_the_elements_move_the_range_and_other_factors_end_it() {
        let code = [0x38_u8];
        let exact = |a: &[f32], b: &[f32]| {
            let operand = Operand::rows(Matrix::new(Elements::E4m3(&code), 1, 1));
            let [a, b] = [a, b].map(|factors| {
                let across = Grid { factors, row_block: 1, depth_block: 1, row_stride: 1, depth_stride: 1 };
                operand.scaled(across)
            });
            products_are_exact(&a, &b)
        };
        let two = |exponent| 2.0_f32.powi(exponent);
        assert!(exact(&[1.0, 0.25, -8.0], &[two(20), two(-90)]));
        assert!(!exact(&[1.0, 0.3], &[1.0]) && !exact(&[1.0], &[f32::from_bits(3)]));
        // E4M3 numbers are multiples of 2⁻⁹ below 2⁹.
        assert!(exact(&[two(-100)], &[two(-31)]) && !exact(&[two(-100)], &[two(-32)]));
        assert!(exact(&[two(100)], &[two(10)]) && !exact(&[two(100)], &[two(11)]));
        assert!(
            exact(&[f32::from_bits(1 << 10)], &[two(8)]) && !exact(&[f32::from_bits(1 << 10)], &[two(7)])
        );
        // Products with these are infinities, zeros and NaNs whatever the step.
        assert!(exact(&[f32::INFINITY, 0.0, -0.0, f32::NAN], &[1.0]));
    }

    fn assert_fused(x: f32, y: f32, sum: f32) {
        let (found, expected) = (Emulated::step(x, y, sum), x.mul_add(y, sum));
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
            "{x:e} · {y:e} + {sum:e}: {found:e}, {expected:e} expected"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200_000))]

        #[test]
        fn the_emulated_step_is_fused_for_all_bits(x: u32, y: u32, sum: u32) {
            assert_fused(f32::from_bits(x), f32::from_bits(y), f32::from_bits(sum));
        }

        #[test]
        fn the_emulated_step_is_fused_where_product_and_sum_nearly_cancel(x: u32, y: u32, off in -8..8_i32) {
            let (x, y) = (f32::from_bits(x), f32::from_bits(y));
            assert_fused(x, y, f32::from_bits((-x * y).to_bits().wrapping_add_signed(off)));
        }

        #[test]
        fn the_emulated_step_rounds_ties_once(x in 1..1_u32 << 24, y in 1..1_u32 << 24, shift in 0..60, sign: bool) {
            // Sums far above the product: the product decides ties alone.
            let sum = ((x ^ y) | 1 << 23) as f32 * 2.0_f32.powi(shift);
            assert_fused(x as f32, y as f32, if sign { sum } else { -sum });
        }
    }

    #[test]
    fn the_emulated_step_is_fused_for_special_values() {
        let values =
            [0.0, -0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, f32::INFINITY, f32::NAN];
        for x in values {
            for y in values {
                for sum in values {
                    assert_fused(x, y, sum);
                }
            }
        }
    }
}
