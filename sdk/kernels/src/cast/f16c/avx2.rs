//! Vectors of 8 floats and 16 halves: `avx512` with half as many lanes, and no masks.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_castps_si256, _mm256_castsi128_si256, _mm256_castsi256_ps, _mm256_cvtps_ph,
    _mm256_inserti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_epu32, _mm256_mul_ps,
    _mm256_or_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_storeu_si256, _mm256_sub_ps,
};

use half::bf16;

use super::{GROUP, NEAREST, SMALLEST_NORMAL, fetch_ahead, for_each_group, to_unit};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn encode<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16],
    length: usize,
    scales: &[f32],
    alignment: f32,
    codes: &mut [u8],
) {
    for ((x, codes), scale) in x.chunks(length).zip(codes.chunks_mut(length)).zip(scales) {
        let scales = [_mm256_set1_ps(scale * alignment); 8];
        for_each_group(x, codes, |_, x, codes| {
            fetch_ahead(x);
            encode_group::<MANTISSA, EXACT>(x, scales, codes);
        });
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn encode_by_col<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16],
    scales: &[f32],
    codes: &mut [u8],
) {
    let (scales, _) = scales.as_chunks::<GROUP>();
    for_each_group(x, codes, |i, x, codes| {
        let scales = scales[i].as_ptr();
        // SAFETY: the vectors lie in an array of 64 floats.
        let scales = [0, 8, 16, 24, 32, 40, 48, 56].map(|i| unsafe { _mm256_loadu_ps(scales.add(i)) });
        encode_group::<MANTISSA, EXACT>(x, scales, codes);
    });
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn encode_group<const MANTISSA: u32, const EXACT: bool>(
    x: &[bf16; GROUP],
    scales: [__m256; 8],
    codes: &mut [u8; GROUP],
) {
    for half in 0..2 {
        let (first, scales) = (32 * half, &scales[4 * half..]);
        // SAFETY: the vectors, of 32 elements from the first on, lie in an array of 64.
        let x = [0, 16].map(|i| unsafe { _mm256_loadu_si256(x.as_ptr().add(first + i).cast()) });
        let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
        let even = x.map(|x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)));
        let odd = x.map(|x| _mm256_castsi256_ps(_mm256_and_si256(x, upper)));
        let even = upper_bytes::<MANTISSA, EXACT>(even, [scales[0], scales[1]]);
        let odd = upper_bytes::<MANTISSA, EXACT>(odd, [scales[2], scales[3]]);
        let upper = _mm256_set1_epi16(0xff00_u16.cast_signed());
        let merged = _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, upper);
        // SAFETY: the vector, of 32 bytes from the first on, lies in an array of 64.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().add(first).cast(), merged) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn upper_bytes<const MANTISSA: u32, const EXACT: bool>(x: [__m256; 2], scales: [__m256; 2]) -> __m256i {
    let [low, high] = [0, 1].map(|i| {
        let product = _mm256_mul_ps(x[i], scales[i]);
        _mm256_cvtps_ph::<NEAREST>(if EXACT { product } else { rounded::<MANTISSA>(product) })
    });
    let halves = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
    let placed = if MANTISSA == 3 {
        _mm256_add_epi16(halves, _mm256_and_si256(halves, _mm256_set1_epi16(0x7fff)))
    } else {
        halves
    };
    if !EXACT {
        return placed;
    }
    let odd = _mm256_and_si256(_mm256_srli_epi16::<8>(placed), _mm256_set1_epi16(1));
    _mm256_add_epi16(_mm256_add_epi16(placed, _mm256_set1_epi16(0x7f)), odd)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rounded<const MANTISSA: u32>(x: __m256) -> __m256 {
    let exponent = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7f80_0000));
    let exponent = _mm256_max_epu32(exponent, _mm256_set1_epi32(SMALLEST_NORMAL));
    let unit = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(to_unit(MANTISSA))));
    let rounded = _mm256_sub_ps(_mm256_add_ps(x, unit), unit);
    _mm256_or_ps(rounded, _mm256_and_ps(x, _mm256_set1_ps(-0.0)))
}
