//! bf16 to FP8 by way of half precision (see `way`), in vectors of AVX2 and AVX-512.
//!
//! A vector of bf16 is two of f32: the even elements are its 32-bit lanes shifted up, the odd ones are those lanes with
//! the lower half cleared. Both become halves, then codes in the upper bytes of 16-bit lanes, and merging the two puts
//! the codes back in order, without a shuffle.
#![allow(unsafe_code)]

mod avx2;
mod avx512;

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use half::bf16;

use super::PIECE;
use super::way::Way;
use crate::{Fp8, Isa};

/// Elements that are encoded together, as two vectors of AVX-512 or four of AVX2, and whose scales lie together.
pub(super) const GROUP: usize = 64;

/// Rounding of `vcvtps2ph`: to nearest, ties to even.
const NEAREST: i32 = 0;

/// The bits of half precision's smallest normal number, in f32.
const SMALLEST_NORMAL: i32 = (127 - 14) << 23;

/// What added to the bits of a power of two makes one and a half of the power whose last place is the spacing of the
/// codes there. The half keeps the sum with a negative number from falling to the power below.
const fn to_unit(mantissa: u32) -> i32 {
    ((23 - mantissa as i32) << 23) | 0x40_0000
}

/// The function of this name for an instruction set, format and way.
macro_rules! choose {
    ($name:ident, $isa:expr, $format:expr, $way:expr) => {
        match ($isa, $format, $way) {
            (Isa::Scalar, ..) | (.., Way::Any) => unreachable!("a way without vectors"),
            (Isa::Avx2, Fp8::E4m3, Way::Rounded) => avx2::$name::<3, false>,
            (Isa::Avx2, Fp8::E4m3, Way::Exact) => avx2::$name::<3, true>,
            (Isa::Avx2, Fp8::E5m2, Way::Rounded) => avx2::$name::<2, false>,
            (Isa::Avx2, Fp8::E5m2, Way::Exact) => avx2::$name::<2, true>,
            (Isa::Avx512, Fp8::E4m3, Way::Rounded) => avx512::$name::<3, false>,
            (Isa::Avx512, Fp8::E4m3, Way::Exact) => avx512::$name::<3, true>,
            (Isa::Avx512, Fp8::E5m2, Way::Rounded) => avx512::$name::<2, false>,
            (Isa::Avx512, Fp8::E5m2, Way::Exact) => avx512::$name::<2, true>,
        }
    };
}

/// Codes of pieces of `length` elements with a scale each.
pub(super) fn encode(
    isa: Isa,
    format: Fp8,
    way: Way,
    x: &[bf16],
    length: usize,
    scales: &[f32],
    codes: &mut [u8],
) {
    isa.require();
    let encode: unsafe fn(&[bf16], usize, &[f32], f32, &mut [u8]) = choose!(encode, isa, format, way);
    // SAFETY: `require` has seen that this CPU has the instruction set it was chosen for.
    unsafe { encode(x, length, scales, way.alignment(format), codes) };
}

/// `codes[j] = encode(x[j] · scales[j])`, with scales from [`order`].
pub(super) fn encode_by_col(isa: Isa, format: Fp8, way: Way, x: &[bf16], scales: &[f32], codes: &mut [u8]) {
    isa.require();
    let encode: unsafe fn(&[bf16], &[f32], &mut [u8]) = choose!(encode_by_col, isa, format, way);
    // SAFETY: as above.
    unsafe { encode(x, scales, codes) };
}

/// Aligns scales and puts those of a vector together, in whole groups; what is left of the last becomes 0.
pub(super) fn order(isa: Isa, format: Fp8, way: Way, scales: &[f32], ordered: &mut [f32]) {
    for (scales, ordered) in scales.chunks(GROUP).zip(ordered.as_chunks_mut().0) {
        let mut aligned = [0.0; GROUP];
        for (aligned, scale) in aligned.iter_mut().zip(scales) {
            *aligned = scale * way.alignment(format);
        }
        match isa {
            Isa::Avx512 => order_vectors::<16>(&aligned, ordered),
            Isa::Scalar | Isa::Avx2 => order_vectors::<8>(&aligned, ordered),
        }
    }
}

/// Of `4 · LANES` scales the even ones first, then the odd ones, and so on.
fn order_vectors<const LANES: usize>(scales: &[f32; GROUP], ordered: &mut [f32; GROUP]) {
    for (scales, ordered) in scales.chunks_exact(4 * LANES).zip(ordered.chunks_exact_mut(4 * LANES)) {
        let (even, odd) = ordered.split_at_mut(2 * LANES);
        for ((pair, even), odd) in scales.chunks_exact(2).zip(even).zip(odd) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    }
}

/// Gives each group of elements to `encode`, with its number; the last one is filled up with zeros.
#[inline(always)]
fn for_each_group(x: &[bf16], codes: &mut [u8], encode: impl Fn(usize, &[bf16; GROUP], &mut [u8; GROUP])) {
    let (groups, rest) = x.as_chunks();
    let (codes, rest_of_codes) = codes.as_chunks_mut();
    for (i, (x, codes)) in groups.iter().zip(codes).enumerate() {
        encode(i, x, codes);
    }
    if !rest.is_empty() {
        let (mut x, mut codes) = ([bf16::ZERO; GROUP], [0; GROUP]);
        x[..rest.len()].copy_from_slice(rest);
        encode(groups.len(), &x, &mut codes);
        rest_of_codes.copy_from_slice(&codes[..rest.len()]);
    }
}

/// Fetches what lies [`PIECE`] elements ahead into the cache. A piece of a tensor is searched for its maximum before it
/// is encoded: meanwhile memory would rest.
#[inline(always)]
fn fetch_ahead(x: &[bf16; GROUP]) {
    for line in [0, 32] {
        // SAFETY: a fetch reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(PIECE + line).cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::{holds, is_power};
    use super::*;
    use crate::Element;
    use crate::philox::Philox;

    const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];

    /// 1 and some numbers up to 2: some whose products with bf16 lie in the middle between codes or next to it, and any.
    fn mantissas() -> Vec<f32> {
        let [any, ..] = Philox::new(3, "mantissas").words(0, 0);
        let any = f32::from_bits(0x3f80_0000 | (any >> 9));
        vec![1.0, 1.5, 1.0 + 1.0 / 128.0, 1.0_f32.next_up(), 2.0_f32.next_down(), 4.0 / 3.0, any]
    }

    /// Every number that may be cast with `scale`, so many that no vector is left over.
    fn castable(format: Fp8, scale: f32) -> Vec<bf16> {
        let all = (0..=u16::MAX).map(bf16::from_bits);
        let mut castable: Vec<_> = all.filter(|x| holds(format, x.widen().abs(), scale)).collect();
        castable.resize(castable.len().next_multiple_of(GROUP), bf16::ZERO);
        castable
    }

    #[test]
    fn every_number_times_every_power_of_two_and_some_other_scales_gets_the_nearest_code() {
        for format in FORMATS {
            for exponent in 1..=254 {
                for mantissa in mantissas() {
                    let scale = f32::from_bits(exponent << 23) * mantissa;
                    let x = castable(format, scale);
                    let expected: Vec<u8> = x.iter().map(|x| format.encode(x.widen() * scale)).collect();
                    let mut codes = vec![0xaa; x.len()];
                    let ways =
                        if is_power(scale) { &[Way::Rounded, Way::Exact][..] } else { &[Way::Rounded] };
                    for isa in Isa::available().filter(|isa| *isa != Isa::Scalar) {
                        for way in ways {
                            encode(isa, format, *way, &x, x.len().max(1), &[scale], &mut codes);
                            let wrong = (0..x.len()).find(|i| codes[*i] != expected[*i]);
                            let wrong = wrong.map(|i| (x[i], codes[i], expected[i]));
                            assert_eq!(wrong, None, "{} {format:?} {way:?} {scale:e}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_elements_and_their_place_in_memory_do_not_matter() {
        let x: Vec<bf16> = (0..300_u16).map(|i| bf16::from_bits((0x3c00 + i * 3) | (i << 15))).collect();
        let powers: Vec<f32> = (0..300).map(|i| 2.0_f32.powi(i % 11 - 6)).collect();
        let others: Vec<f32> = powers.iter().map(|scale| scale * 1.3).collect();
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200] {
            for (way, scales) in [(Way::Exact, &powers), (Way::Rounded, &powers), (Way::Rounded, &others)] {
                for (format, start) in
                    FORMATS.into_iter().flat_map(|f| [0, 1, 2, 3, 31].map(|start| (f, start)))
                {
                    let (x, scales) = (&x[start..][..len], &scales[start..][..len]);
                    let code = |(x, scale): (&bf16, &f32)| format.encode(x.widen() * scale);
                    for isa in Isa::available().filter(|isa| *isa != Isa::Scalar) {
                        let mut codes = vec![0xaa; start + len + 1];
                        let mut ordered = vec![f32::NAN; len.next_multiple_of(GROUP)];
                        order(isa, format, way, scales, &mut ordered);
                        encode_by_col(isa, format, way, x, &ordered, &mut codes[start..][..len]);
                        let each: Vec<u8> = x.iter().zip(scales).map(code).collect();
                        assert!(codes[start..][..len] == each, "{} {format:?} {way:?} {len}", isa.name());
                        for length in [1, 7, 64, 65, 1000] {
                            let scale = |i| &scales[i / length];
                            let expected: Vec<u8> =
                                x.iter().enumerate().map(|(i, x)| code((x, scale(i)))).collect();
                            encode(isa, format, way, x, length, scales, &mut codes[start..][..len]);
                            let what = format!("{} {format:?} {way:?} {len} {length}", isa.name());
                            assert!(codes[start..][..len] == expected, "{what}");
                        }
                        let around = [&codes[..start], &codes[start + len..]].concat();
                        assert!(around.iter().all(|code| *code == 0xaa));
                    }
                }
            }
        }
    }
}
