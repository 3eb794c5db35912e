//! Vectors of 16 floats and 32 halves.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi256_si512, _mm512_castsi512_ps, _mm512_cvtps_ph, _mm512_inserti64x4,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_epi16, _mm512_max_epu32, _mm512_mul_ps,
    _mm512_or_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi16,
    _mm512_storeu_si512, _mm512_sub_ps, _mm512_ternarylogic_epi32, _mm512_test_epi16_mask,
};

use half::bf16;

use super::{GROUP, NEAREST, SMALLEST_NORMAL, fetch_ahead, for_each_group, to_unit};

/// Codes of pieces of `length` elements with a scale each, which `alignment` aligns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn encode<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16],
    length: usize,
    scales: &[f32],
    alignment: f32,
    codes: &mut [u8],
) {
    for ((x, codes), scale) in x.chunks(length).zip(codes.chunks_mut(length)).zip(scales) {
        let scales = [_mm512_set1_ps(scale * alignment); 4];
        for_each_group(x, codes, |_, x, codes| {
            fetch_ahead(x);
            encode_group::<MANTISSA, EXACT>(x, scales, codes);
        });
    }
}

/// Codes of elements with a scale each, aligned and in order.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn encode_by_col<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16],
    scales: &[f32],
    codes: &mut [u8],
) {
    let (scales, _) = scales.as_chunks::<GROUP>();
    for_each_group(x, codes, |i, x, codes| {
        let scales = scales[i].as_ptr();
        // SAFETY: the vectors lie in an array of 64 floats.
        let scales = [0, 16, 32, 48].map(|i| unsafe { _mm512_loadu_ps(scales.add(i)) });
        encode_group::<MANTISSA, EXACT>(x, scales, codes);
    });
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn encode_group<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16; GROUP],
    scales: [__m512; 4],
    codes: &mut [u8; GROUP],
) {
    // SAFETY: the vectors lie in an array of 64 elements.
    let x = [0, 32].map(|i| unsafe { _mm512_loadu_si512(x.as_ptr().add(i).cast()) });
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let even = x.map(|x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)));
    let odd = x.map(|x| _mm512_castsi512_ps(_mm512_and_si512(x, upper)));
    let even = upper_bytes::<MANTISSA, EXACT>(even, [scales[0], scales[1]]);
    let odd = upper_bytes::<MANTISSA, EXACT>(odd, [scales[2], scales[3]]);
    // The upper bytes of `odd`, the others from below.
    let upper = _mm512_set1_epi16(0xff00_u16.cast_signed());
    let merged = _mm512_ternarylogic_epi32::<0xca>(upper, odd, _mm512_srli_epi16::<8>(even));
    // SAFETY: the vector lies in an array of 64 bytes.
    unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), merged) };
}

/// Codes in the upper bytes of 16-bit lanes, with anything below.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn upper_bytes<const MANTISSA: u32, const EXACT: bool>(x: [__m512; 2], scales: [__m512; 2]) -> __m512i {
    let [low, high] = [0, 1].map(|i| {
        let product = _mm512_mul_ps(x[i], scales[i]);
        _mm512_cvtps_ph::<NEAREST>(if EXACT { product } else { rounded::<MANTISSA>(product) })
    });
    let halves = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    // E4M3 has an exponent bit less than a half, and E5M2's place is right.
    let placed = if MANTISSA == 3 {
        _mm512_add_epi16(halves, _mm512_and_si512(halves, _mm512_set1_epi16(0x7fff)))
    } else {
        halves
    };
    if !EXACT {
        return placed;
    }
    // To nearest, ties to even: half of the upper byte's one less one, or the half if that byte is odd.
    let odd = _mm512_test_epi16_mask(halves, _mm512_set1_epi16(1 << (10 - MANTISSA)));
    let half = _mm512_mask_blend_epi16(odd, _mm512_set1_epi16(0x7f), _mm512_set1_epi16(0x80));
    _mm512_add_epi16(placed, half)
}

/// The value of the nearest code, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn rounded<const MANTISSA: u32>(x: __m512) -> __m512 {
    let exponent = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7f80_0000));
    let exponent = _mm512_max_epu32(exponent, _mm512_set1_epi32(SMALLEST_NORMAL));
    let unit = _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(to_unit(MANTISSA))));
    let rounded = _mm512_sub_ps(_mm512_add_ps(x, unit), unit);
    // A negative number that becomes 0 keeps its sign.
    _mm512_or_ps(rounded, _mm512_and_ps(x, _mm512_set1_ps(-0.0)))
}
