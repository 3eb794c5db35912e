//! Blocks of a matrix turned over in registers: how an operand that lies along the contraction reaches tiles that run
//! across it.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
    _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

use crate::Isa;

/// Rows and columns of a block.
pub(crate) const SIDE: usize = 16;

/// Columns of a strip: a cache line of FP8 codes.
pub(crate) const LENGTH: usize = 64;

/// Some blocks side by side.
pub(crate) type Strip = [[f32; LENGTH]; SIDE];

/// A block turned over.
pub(crate) type Block = [[f32; SIDE]; SIDE];

/// `out[j][i] = x[i][first + j]` for the first `rows` rows of `x`; what else is in `out` may be anything.
#[inline(always)]
pub(crate) fn plain(x: &Strip, first: usize, rows: usize, out: &mut Block) {
    for (j, out) in out.iter_mut().enumerate() {
        for i in 0..rows {
            out[i] = x[i][first + j];
        }
    }
}

/// [`plain`] by quarters of 8 × 8: pairs, fours, halves.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn avx2(x: &Strip, first: usize, rows: usize, out: &mut Block) {
    for i in (0..rows).step_by(8) {
        for j in [0, 8] {
            let load = |r: usize| {
                let row: &[f32; 8] = x[i + r][first + j..].first_chunk().expect("8 of 16");
                // SAFETY: there are 8 floats.
                unsafe { _mm256_loadu_ps(row.as_ptr()) }
            };
            let x: [__m256; 8] = std::array::from_fn(load);
            let mut pairs = x;
            for r in (0..8).step_by(2) {
                pairs[r] = _mm256_unpacklo_ps(x[r], x[r + 1]);
                pairs[r + 1] = _mm256_unpackhi_ps(x[r], x[r + 1]);
            }
            let mut fours = x;
            for r in [0, 4] {
                for h in [0, 1] {
                    fours[r + 2 * h] = _mm256_shuffle_ps::<0x44>(pairs[r + h], pairs[r + 2 + h]);
                    fours[r + 2 * h + 1] = _mm256_shuffle_ps::<0xee>(pairs[r + h], pairs[r + 2 + h]);
                }
            }
            for c in 0..4 {
                let halves = [
                    _mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]),
                    _mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]),
                ];
                for (h, half) in halves.into_iter().enumerate() {
                    let row: &mut [f32; 8] = out[j + c + 4 * h][i..].first_chunk_mut().expect("8 of 16");
                    // SAFETY: there is room for 8 floats.
                    unsafe { _mm256_storeu_ps(row.as_mut_ptr(), half) };
                }
            }
        }
    }
}

/// [`plain`] at once: pairs, fours, then fours among the quarters of the registers.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn avx512(x: &Strip, first: usize, rows: usize, out: &mut Block) {
    let load = |r: usize| {
        if r < rows {
            let row: &[f32; SIDE] = x[r][first..].first_chunk().expect("a block of the strip");
            // SAFETY: there are 16 floats.
            unsafe { _mm512_loadu_ps(row.as_ptr()) }
        } else {
            _mm512_setzero_ps()
        }
    };
    let x: [__m512; SIDE] = std::array::from_fn(load);
    let mut pairs = x;
    for r in (0..SIDE).step_by(2) {
        pairs[r] = _mm512_unpacklo_ps(x[r], x[r + 1]);
        pairs[r + 1] = _mm512_unpackhi_ps(x[r], x[r + 1]);
    }
    // fours[r + c] holds column c, of each quarter, of rows r to r + 3.
    let mut fours = x;
    for r in (0..SIDE).step_by(4) {
        for h in [0, 1] {
            fours[r + 2 * h] = _mm512_shuffle_ps::<0x44>(pairs[r + h], pairs[r + 2 + h]);
            fours[r + 2 * h + 1] = _mm512_shuffle_ps::<0xee>(pairs[r + h], pairs[r + 2 + h]);
        }
    }
    for c in 0..4 {
        let [a, b, c4, d] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c4, d)];
        let odd = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c4, d)];
        let columns = [
            _mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
            _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
            _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
            _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
        ];
        for (quarter, column) in columns.into_iter().enumerate() {
            // SAFETY: there is room for 16 floats.
            unsafe { _mm512_storeu_ps(out[4 * quarter + c].as_mut_ptr(), column) };
        }
    }
}

/// Turns `x`, dense with `cols` columns, over into `out`, dense with as many columns as `x` has rows.
///
/// # Panics
/// If `out` is not of the same size, or it is no whole number of rows.
pub fn transpose(isa: Isa, x: &[f32], cols: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "one place an element");
    let rows = x.len().checked_div(cols).unwrap_or(0);
    assert_eq!(rows * cols, x.len(), "whole rows");
    isa.require();
    let (mut strip, mut turned) = ([[0.0; LENGTH]; SIDE], [[0.0; SIDE]; SIDE]);
    for i in (0..rows).step_by(SIDE) {
        let height = SIDE.min(rows - i);
        for j in (0..cols).step_by(LENGTH) {
            let length = LENGTH.min(cols - j);
            for (row, strip) in strip.iter_mut().enumerate().take(height) {
                strip[..length].copy_from_slice(&x[(i + row) * cols + j..][..length]);
            }
            for first in (0..length).step_by(SIDE) {
                match isa {
                    Isa::Scalar => plain(&strip, first, height, &mut turned),
                    // SAFETY: `require` has seen that this CPU has it.
                    Isa::Avx2 => unsafe { avx2(&strip, first, height, &mut turned) },
                    // SAFETY: as above.
                    Isa::Avx512 => unsafe { avx512(&strip, first, height, &mut turned) },
                }
                for (col, turned) in turned.iter().enumerate().take(length - first) {
                    out[(j + first + col) * rows + i..][..height].copy_from_slice(&turned[..height]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_finds_its_place_in_matrices_of_all_sizes() {
        for isa in Isa::available() {
            for [rows, cols] in
                [[0, 3], [1, 1], [6, 16], [12, 33], [15, 17], [16, 16], [64, 48], [31, 100], [2, 7]]
            {
                let x: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
                let mut out = vec![-1.0; rows * cols];
                transpose(isa, &x, cols, &mut out);
                for i in 0..rows {
                    for j in 0..cols {
                        assert_eq!(out[j * rows + i], x[i * cols + j], "{isa:?} {rows}×{cols} {i} {j}");
                    }
                }
            }
        }
    }
}
