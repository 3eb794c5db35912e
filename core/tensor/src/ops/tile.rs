//! A small dense product on f32 tiles that lie in cache: the inner loop of attention.

/// Columns of a register block; every tile's width is a multiple of it.
pub(crate) const NR: usize = 16;

/// Rows of a register block; every tile's height is a multiple of it.
const MR: usize = 4;

/// `c[m,n] += a[m,k] · b[k,n]`, all row-major with row lengths `k`, `n`, `n`; `k` ascending, fused multiply-add.
///
/// `m` is a multiple of 4, `n` of [`NR`].
#[inline(always)]
pub(crate) fn accumulate(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    debug_assert!(m.is_multiple_of(MR) && n.is_multiple_of(NR));
    for i in (0..m).step_by(MR) {
        let rows: [&[f32]; MR] = std::array::from_fn(|r| &a[(i + r) * k..][..k]);
        for j in (0..n).step_by(NR) {
            let mut sum = [[0.0_f32; NR]; MR];
            for (r, sum) in sum.iter_mut().enumerate() {
                sum.copy_from_slice(&c[(i + r) * n + j..][..NR]);
            }
            for l in 0..k {
                let b: &[f32; NR] = b[l * n + j..][..NR].try_into().expect("NR elements");
                for (sum, row) in sum.iter_mut().zip(&rows) {
                    let x = row[l];
                    for (sum, b) in sum.iter_mut().zip(b) {
                        *sum = x.mul_add(*b, *sum);
                    }
                }
            }
            for (r, sum) in sum.iter().enumerate() {
                c[(i + r) * n + j..][..NR].copy_from_slice(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_product_adds_in_ascending_order() {
        let (m, n, k) = (8, 32, 5);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut c = vec![0.5; m * n];
        accumulate(m, n, k, &a, &b, &mut c);
        for i in 0..m {
            for j in 0..n {
                let expected = (0..k).fold(0.5_f32, |s, l| a[i * k + l].mul_add(b[l * n + j], s));
                assert_eq!(c[i * n + j], expected);
            }
        }
    }
}
