//! The FMA units at their peak: independent sums that stay in registers, and nothing else.
//!
//! Written with intrinsics, because compilers keep arrays of floats in registers for some sizes and in memory for others.
//! Each sum waits for itself (4 or 5 cycles a step on today's cores, which begin up to two steps a cycle), so at least
//! ten of them are needed to fill the units:
//!
//! | | sums | registers |
//! | --- | --- | --- |
//! | AVX-512 | 24 × 16 | 24, and 2 factors, of 32 |
//! | AVX2 | 12 × 8 | 12, and 2 factors, of 16 |
//! | baseline | 12 × 4, a product and a sum for want of FMA | 12, and 2 factors, of 16 |
#![allow(unsafe_code)]

use std::arch::x86_64::{
    _mm_add_ps, _mm_mul_ps, _mm_set1_ps, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps,
};
use std::hint::black_box;

use fp8flow_kernels::Isa;

/// FLOPs of a step: two for every lane of every sum.
pub(crate) const fn flops(isa: Isa) -> usize {
    2 * match isa {
        Isa::Scalar => 12 * 4,
        Isa::Avx2 => 12 * 8,
        Isa::Avx512 => 24 * 16,
    }
}

/// So many steps of `s ← s · ½ + ½` with every sum, by one thread.
pub(crate) fn run(isa: Isa, steps: usize) {
    let half = black_box(0.5);
    isa.require();
    match isa {
        // SAFETY: SSE2 is part of x86-64.
        Isa::Scalar => unsafe { sse2(steps, half) },
        // SAFETY: `require` has seen that this CPU has it.
        Isa::Avx2 => unsafe { avx2(steps, half) },
        // SAFETY: as above.
        Isa::Avx512 => unsafe { avx512(steps, half) },
    }
}

#[target_feature(enable = "sse2")]
fn sse2(steps: usize, half: f32) {
    let half = _mm_set1_ps(half);
    let mut sums = [_mm_set1_ps(1.0); 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm_add_ps(_mm_mul_ps(*sum, half), half);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2,fma")]
fn avx2(steps: usize, half: f32) {
    let half = _mm256_set1_ps(half);
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, half, half);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f")]
fn avx512(steps: usize, half: f32) {
    let half = _mm512_set1_ps(half);
    let mut sums = [_mm512_set1_ps(1.0); 24];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, half, half);
        }
    }
    black_box(sums);
}
