//! Factors on the elements of an operand: what a contraction of block-scaled codes multiplies back.

use crate::matrix::grid;

/// One factor for each block of an operand: the reciprocals of block scales.
///
/// Element `(i, k)` of the operand is multiplied by the factor at
/// `(i / row_block) · row_stride + (k / depth_block) · depth_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// The factors that the strides index.
    pub factors: &'a [f32],
    /// Rows of the operand in a block.
    pub row_block: usize,
    /// Steps of the contraction in a block.
    pub depth_block: usize,
    /// Factors from one block to the next, across the operand's rows.
    pub row_stride: usize,
    /// Factors from one block to the next, along the contraction.
    pub depth_stride: usize,
}

impl<'a> Grid<'a> {
    /// For [`Operand::rows`](super::Operand::rows): the factors of a matrix of `shape`, one for each block of `block`
    /// elements, as [`cast_blocks`](crate::cast::cast_blocks) lays out scales.
    ///
    /// # Panics
    /// If there is not one factor for each block.
    pub fn rows(factors: &'a [f32], shape: [usize; 2], block: [usize; 2]) -> Self {
        let [down, across] = grid(shape, block);
        assert_eq!(factors.len(), down * across, "factors of {down}×{across} blocks");
        let [row_block, depth_block] = block;
        Self { factors, row_block, depth_block, row_stride: across, depth_stride: 1 }
    }

    /// For [`Operand::transposed`](super::Operand::transposed): the same, with `shape` and `block` as the matrix lies
    /// in memory, its columns the operand's rows.
    ///
    /// # Panics
    /// If there is not one factor for each block.
    pub fn transposed(factors: &'a [f32], shape: [usize; 2], block: [usize; 2]) -> Self {
        let Self { row_block, depth_block, row_stride, depth_stride, .. } = Self::rows(factors, shape, block);
        Self {
            factors,
            row_block: depth_block,
            depth_block: row_block,
            row_stride: depth_stride,
            depth_stride: row_stride,
        }
    }

    /// The factor of element `(row, step)`.
    #[inline(always)]
    pub(super) fn factor(&self, row: usize, step: usize) -> f32 {
        self.factors[row / self.row_block * self.row_stride + step / self.depth_block * self.depth_stride]
    }

    /// Fails where an index would leave the factors; there are rows and steps.
    pub(super) fn check(&self, name: &str, rows: usize, depth: usize) {
        assert!(self.row_block > 0 && self.depth_block > 0, "{name}: blocks of a grid have rows and steps");
        let last = ((rows - 1) / self.row_block)
            .checked_mul(self.row_stride)
            .zip(((depth - 1) / self.depth_block).checked_mul(self.depth_stride))
            .and_then(|(row, step)| row.checked_add(step));
        assert!(last.is_some_and(|last| last < self.factors.len()), "{name}: a stride leaves the factors");
    }
}
