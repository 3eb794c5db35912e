//! Small dense products on f32 tiles that lie in cache: the inner loops of attention.
//!
//! All matrices are row-major, rows of `a` are `stride` apart. Sums run over `k`, ascending, with fused multiply-add, from what `c` holds.

use fp8flow_kernels::{Isa, multiversion};

/// Columns of the widest register block; every tile's width is a multiple of it.
pub(crate) const WIDTH: usize = 32;

/// Rows of the highest register block; every tile's height is a multiple of it.
pub(crate) const HEIGHT: usize = 8;

/// `c[m,n] += a[m,k] · b[k,n]`.
pub(crate) fn accumulate(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: &[f32],
    stride: usize,
    b: &[f32],
    c: &mut [f32],
) {
    debug_assert!(m.is_multiple_of(HEIGHT) && n.is_multiple_of(WIDTH));
    match isa {
        Isa::Avx512 => by_rows::<8, 32>(isa, m, n, k, a, stride, b, c),
        _ => by_rows::<4, 16>(isa, m, n, k, a, stride, b, c),
    }
}

/// `c[m,n] += aᵀ · b[k,n]` for `a[k,m]`.
pub(crate) fn accumulate_transposed(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: &[f32],
    stride: usize,
    b: &[f32],
    c: &mut [f32],
) {
    debug_assert!(m.is_multiple_of(HEIGHT) && n.is_multiple_of(WIDTH));
    match isa {
        Isa::Avx512 => by_cols::<8, 32>(isa, m, n, k, a, stride, b, c),
        _ => by_cols::<4, 16>(isa, m, n, k, a, stride, b, c),
    }
}

multiversion! {
    fn by_rows[const MR, const NR](m: usize, n: usize, k: usize, a: &[f32], stride: usize, b: &[f32], c: &mut [f32]) {
        for i in (0..m).step_by(MR) {
            let mut rows = [&a[..0]; MR];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = &a[(i + r) * stride..][..k];
            }
            for j in (0..n).step_by(NR) {
                let mut sums = load::<MR, NR>(c, n, i, j);
                for l in 0..k {
                    let b: &[f32; NR] = b[l * n + j..].first_chunk().expect("a row of b");
                    for (sums, row) in sums.iter_mut().zip(&rows) {
                        let x = row[l];
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = x.mul_add(*b, *sum);
                        }
                    }
                }
                store(&sums, c, n, i, j);
            }
        }
    }
}

multiversion! {
    fn by_cols[const MR, const NR](m: usize, n: usize, k: usize, a: &[f32], stride: usize, b: &[f32], c: &mut [f32]) {
        for i in (0..m).step_by(MR) {
            for j in (0..n).step_by(NR) {
                let mut sums = load::<MR, NR>(c, n, i, j);
                for (a, b) in a.chunks_exact(stride).zip(b.chunks_exact(n)).take(k) {
                    let a: &[f32; MR] = a[i..].first_chunk().expect("a row of a");
                    let b: &[f32; NR] = b[j..].first_chunk().expect("a row of b");
                    for (sums, x) in sums.iter_mut().zip(a) {
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = x.mul_add(*b, *sum);
                        }
                    }
                }
                store(&sums, c, n, i, j);
            }
        }
    }
}

#[inline(always)]
fn load<const MR: usize, const NR: usize>(c: &[f32], n: usize, i: usize, j: usize) -> [[f32; NR]; MR] {
    let mut sums = [[0.0; NR]; MR];
    for (r, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&c[(i + r) * n + j..][..NR]);
    }
    sums
}

#[inline(always)]
fn store<const MR: usize, const NR: usize>(
    sums: &[[f32; NR]; MR],
    c: &mut [f32],
    n: usize,
    i: usize,
    j: usize,
) {
    for (r, sums) in sums.iter().enumerate() {
        c[(i + r) * n + j..][..NR].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_product_adds_in_ascending_order() {
        let (m, n, k, stride) = (16, 64, 5, 7);
        let a: Vec<f32> = (0..m * stride).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.11).cos()).collect();
        let transposed: Vec<f32> = (0..k * m).map(|i| a[i % m * stride + i / m]).collect();
        for isa in Isa::available() {
            let (mut c, mut ct) = (vec![0.5; m * n], vec![0.5; m * n]);
            accumulate(isa, [m, n, k], &a, stride, &b, &mut c);
            accumulate_transposed(isa, [m, n, k], &transposed, m, &b, &mut ct);
            for i in 0..m {
                for j in 0..n {
                    let sum = (0..k).fold(0.5_f32, |s, l| a[i * stride + l].mul_add(b[l * n + j], s));
                    assert_eq!((c[i * n + j], ct[i * n + j]), (sum, sum), "{isa:?} {i} {j}");
                }
            }
        }
    }
}
