//! The end of a sum: two factors, the old output if asked, one rounding.

use super::tile::Sums;
use super::{Epilogue, Store};
use crate::{Element, Rectangle};

/// What turns the sums of a tile into elements of the output; counts rows and columns as the output does.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) scale_a: Epilogue<'a>,
    pub(super) scale_b: Epilogue<'a>,
    pub(super) store: Store,
}

impl Finish<'_> {
    /// The factors of the columns of a tile at `col`, as far as they exist.
    #[inline(always)]
    pub(super) fn columns<const NR: usize>(self, col: usize) -> [f32; NR] {
        // A factor of one changes no bit of a number.
        let mut factors = [1.0; NR];
        match self.scale_b {
            Epilogue::One => {}
            Epilogue::Tensor(factor) => factors = [factor; NR],
            Epilogue::PerRow(all) => {
                for (factor, all) in factors.iter_mut().zip(&all[col..]) {
                    *factor = *all;
                }
            }
        }
        factors
    }

    /// Writes what of a tile at `row` and `col` lies in `out`.
    #[inline(always)]
    pub(super) fn tile<T: Element, const MR: usize, const NR: usize>(
        self,
        sums: &Sums<MR, NR>,
        columns: &[f32; NR],
        row: usize,
        col: usize,
        out: &mut Rectangle<'_, T>,
    ) {
        let (rows, cols) = (MR.min(out.rows().end - row), NR.min(out.cols().end - col));
        let offset = col - out.cols().start;
        for (i, sums) in sums.iter().enumerate().take(rows) {
            let a = self.scale_a.apply(row + i, 1.0);
            // Not as arrays of NR: loops of a length known only later are the ones that become vectors here.
            self.row(sums, a, columns, &mut out.row_mut(row + i)[offset..][..cols]);
        }
    }

    #[inline(always)]
    fn row<T: Element>(self, sums: &[f32], a: f32, b: &[f32], out: &mut [T]) {
        match self.store {
            Store::Overwrite => {
                for ((out, sum), b) in out.iter_mut().zip(sums).zip(b) {
                    *out = T::narrow(sum * a * b);
                }
            }
            Store::Accumulate => {
                for ((out, sum), b) in out.iter_mut().zip(sums).zip(b) {
                    *out = T::narrow(out.widen() + sum * a * b);
                }
            }
        }
    }
}
