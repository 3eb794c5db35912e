//! Small dense products on f32 tiles that lie in cache: the inner loops of attention.
//!
//! All matrices are row-major, rows of `a` are `stride` apart. Sums run over `k`, ascending, with fused multiply-add, from what `c` holds.

use std::ops::Range;

use fp8flow_kernels::{Isa, multiversion};

/// Columns of the widest register block; every tile's width is a multiple of it.
pub(crate) const WIDTH: usize = 32;

/// Rows of a register block; every tile's height is a multiple of it, so that there is room for the last one whole.
pub(crate) const HEIGHT: usize = 4;

/// Which elements of a tile there are, by row and column: all, or those of a triangle with its diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    /// Columns not before the row.
    Upper,
    /// Columns not after the row.
    Lower,
}

impl Part {
    /// The first column in which a row has an element.
    #[inline(always)]
    pub(crate) fn first_column(self, row: usize) -> usize {
        if self == Self::Upper { row } else { 0 }
    }

    /// The columns, of `n`, in which the rows from `first` to `first + HEIGHT` have elements.
    #[inline(always)]
    fn columns(self, first: usize, n: usize) -> Range<usize> {
        let end = if self == Self::Lower { n.min(first + HEIGHT) } else { n };
        self.first_column(first).min(n)..end
    }

    /// The same of the other triangle's tile, rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Upper => Self::Lower,
            Self::Lower => Self::Upper,
        }
    }
}

/// `c[m,n] += a[m,k] · b[k,n]`, for blocks of `c` that have an element of `wanted`. What `a` has outside of `given` is
/// zero, and blocks of [`HEIGHT`] rows leave it out of their sums.
pub(crate) fn accumulate(
    isa: Isa,
    [m, n, k]: [usize; 3],
    [wanted, given]: [Part; 2],
    a: &[f32],
    stride: usize,
    b: &[f32],
    c: &mut [f32],
) {
    debug_assert!(n.is_multiple_of(WIDTH));
    match isa {
        Isa::Avx512 => by_rows::<HEIGHT, 32>(isa, m, n, k, wanted, given, a, stride, b, c),
        _ => by_rows::<HEIGHT, 16>(isa, m, n, k, wanted, given, a, stride, b, c),
    }
}

/// `c[m,n] += aᵀ · b[k,n]` for `a[k,m]`, of which what lies outside of `given` is zero, as above.
pub(crate) fn accumulate_transposed(
    isa: Isa,
    [m, n, k]: [usize; 3],
    given: Part,
    a: &[f32],
    stride: usize,
    b: &[f32],
    c: &mut [f32],
) {
    debug_assert!(n.is_multiple_of(WIDTH));
    match isa {
        Isa::Avx512 => by_cols::<HEIGHT, 32>(isa, m, n, k, given, a, stride, b, c),
        _ => by_cols::<HEIGHT, 16>(isa, m, n, k, given, a, stride, b, c),
    }
}

multiversion! {
    fn by_rows[const MR, const NR](
        m: usize, n: usize, k: usize, wanted: Part, given: Part, a: &[f32], stride: usize, b: &[f32], c: &mut [f32],
    ) {
        for i in (0..m).step_by(MR) {
            let mut rows = [&a[..0]; MR];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = &a[(i + r) * stride..][..k];
            }
            let (columns, steps) = (wanted.columns(i, n), given.columns(i, k));
            for j in (columns.start / NR * NR..columns.end).step_by(NR) {
                let mut sums = load::<MR, NR>(c, n, i, j);
                for l in steps.clone() {
                    let b: &[f32; NR] = b[l * n + j..].first_chunk().expect("a row of b");
                    for r in 0..MR {
                        let x = rows[r][l];
                        for q in 0..NR {
                            sums[r][q] = x.mul_add(b[q], sums[r][q]);
                        }
                    }
                }
                store(&sums, c, n, i, j);
            }
        }
    }
}

multiversion! {
    fn by_cols[const MR, const NR](
        m: usize, n: usize, k: usize, given: Part, a: &[f32], stride: usize, b: &[f32], c: &mut [f32],
    ) {
        for i in (0..m).step_by(MR) {
            let steps = given.transposed().columns(i, k);
            let (a, b) = (&a[steps.start * stride..], &b[steps.start * n..]);
            for j in (0..n).step_by(NR) {
                let mut sums = load::<MR, NR>(c, n, i, j);
                for (a, b) in a.chunks_exact(stride).zip(b.chunks_exact(n)).take(steps.len()) {
                    let a: &[f32; MR] = a[i..].first_chunk().expect("a row of a");
                    let b: &[f32; NR] = b[j..].first_chunk().expect("a row of b");
                    for r in 0..MR {
                        for q in 0..NR {
                            sums[r][q] = a[r].mul_add(b[q], sums[r][q]);
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
        let (m, n, k, stride) = (16, 64, 13, 16);
        let some = |i: usize| (i as f32 * 0.37).sin();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.11).cos()).collect();
        let there = |part: Part, row: usize, col: usize| match part {
            Part::All => true,
            Part::Upper => col >= row,
            Part::Lower => col <= row,
        };
        for isa in Isa::available() {
            for given in [Part::All, Part::Upper, Part::Lower] {
                let element =
                    |i: usize, l: usize| if there(given, i, l) { some(i * stride + l) } else { 0.0 };
                let a: Vec<f32> = (0..m * stride).map(|at| element(at / stride, at % stride)).collect();
                let turned: Vec<f32> = (0..k * m).map(|at| element(at % m, at / m)).collect();
                for wanted in [Part::All, Part::Upper, Part::Lower] {
                    let (mut c, mut ct) = (vec![0.5; m * n], vec![0.5; m * n]);
                    accumulate(isa, [m, n, k], [wanted, given], &a, stride, &b, &mut c);
                    accumulate_transposed(isa, [m, n, k], given.transposed(), &turned, m, &b, &mut ct);
                    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                        let sum = (0..k).fold(0.5_f32, |s, l| element(i, l).mul_add(b[l * n + j], s));
                        assert_eq!(ct[i * n + j], sum, "{isa:?} {given:?} {i} {j}");
                        if there(wanted, i, j) {
                            assert_eq!(c[i * n + j], sum, "{isa:?} {wanted:?} {given:?} {i} {j}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_multiplied() {
        let (m, n, k) = (8, 32, 8);
        let (a, mut b) = (vec![1.0; m * k], vec![1.0; k * n]);
        b[(k - 1) * n..].fill(f32::NAN);
        for isa in Isa::available() {
            let (mut c, mut ct) = (vec![0.0; m * n], vec![0.0; m * n]);
            accumulate(isa, [m, n, k], [Part::All, Part::Lower], &a, k, &b, &mut c);
            accumulate_transposed(isa, [m, n, k], Part::Upper, &a, m, &b, &mut ct);
            for c in [c, ct] {
                assert!(c[..4 * n].iter().all(|sum| *sum == 4.0), "{isa:?}");
                assert!(c[4 * n..].iter().all(|sum| sum.is_nan()), "{isa:?}");
            }
        }
    }
}
