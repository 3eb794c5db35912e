//! Casts with one scale a row, a column, or both.

use super::slice::{self, Columns};
use super::source::Source;
use super::tally::{CastStats, Tally};
use super::{Cast, PIECE, Quantized, ROWS, TASK};
use crate::buffer::Buffer;
use crate::parallel::for_each;
use crate::scale::Nan;

impl<A: Source> Cast<'_, A> {
    /// Elements of a task, whole rows of them. Each has maxima of columns of its own, so a few for each thread.
    fn block(&self) -> usize {
        let [rows, cols] = self.shape;
        rows.div_ceil(self.tasks()).max(TASK / cols).max(1) * cols
    }

    /// By row; raises `maxima`, of the columns of each block, NaN on top, where they are asked for.
    pub(super) fn rows(
        &self,
        out: Quantized<'_>,
        maxima: Option<&mut [A::Magnitude]>,
        stats: Option<&mut CastStats>,
    ) {
        let Quantized { codes, scales } = out;
        let (block, cols) = (self.block(), self.shape[1]);
        let tally = Tally::new(stats.is_some());
        let mut maxima = maxima.map(|maxima| maxima.chunks_exact_mut(cols));
        let blocks = self.x.chunks(block).zip(codes.chunks_mut(block));
        let blocks = blocks.zip(scales.chunks_mut(block / cols));
        let blocks = blocks.map(|block| (block, maxima.as_mut().and_then(Iterator::next)));
        for_each(self.cpu.pool, blocks, |(((x, codes), scales), mut maxima)| {
            let mut counts = tally.start();
            // The maxima of columns are raised by four rows at once.
            let least = if maxima.is_some() { 4 } else { 1 };
            let size = (PIECE / cols).clamp(least, ROWS) * cols;
            let pieces = x.chunks(size).zip(codes.chunks_mut(size)).zip(scales.chunks_mut(size / cols));
            for ((x, codes), scales) in pieces {
                let tops = &mut [A::Magnitude::default(); ROWS][..scales.len()];
                match &mut maxima {
                    Some(maxima) => slice::raise(self.cpu.isa, Nan::Wins, maxima, x, cols, tops),
                    None => slice::maxima_of_pieces(self.cpu.isa, Nan::Wins, x, cols, tops),
                }
                let nan = self.pass_over_nan(tops, |tops| {
                    slice::maxima_of_pieces(self.cpu.isa, Nan::Ignored, x, cols, tops);
                });
                let way = self.scales(tops, nan, scales);
                slice::encode(self.cpu.isa, self.format, way, x, cols, scales, codes, counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }

    pub(super) fn cols(&self, out: Quantized<'_>, stats: Option<&mut CastStats>) {
        self.with_maxima(|maxima| {
            self.raise_blocks(Nan::Wins, maxima);
            self.cols_by_maxima(maxima, out, stats);
        });
    }

    pub(super) fn rows_and_cols(
        &self,
        by_row: Quantized<'_>,
        by_col: Quantized<'_>,
        mut stats: Option<&mut CastStats>,
    ) {
        self.with_maxima(|maxima| {
            self.rows(by_row, Some(&mut *maxima), stats.as_deref_mut());
            self.cols_by_maxima(maxima, by_col, stats);
        });
    }

    /// Lends `body` a zero for each column and block.
    fn with_maxima(&self, body: impl FnOnce(&mut [A::Magnitude])) {
        let len = self.x.len().div_ceil(self.block()) * self.shape[1];
        let mut buffer = Buffer::take(len);
        let maxima = &mut bytemuck::cast_slice_mut(&mut buffer)[..len];
        maxima.fill(A::Magnitude::default());
        body(maxima);
    }

    /// Raises the maxima of each block's columns.
    fn raise_blocks(&self, nan: Nan, maxima: &mut [A::Magnitude]) {
        let [rows, cols] = self.shape;
        let height = self.block() / cols;
        for_each(self.cpu.pool, maxima.chunks_exact_mut(cols).enumerate(), |(i, maxima)| {
            self.raise(nan, maxima, i * height..rows.min((i + 1) * height), 0..cols);
        });
    }

    /// By column, from the maxima of each block's columns, NaN on top.
    fn cols_by_maxima(&self, maxima: &mut [A::Magnitude], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        let Quantized { codes, scales } = out;
        let (isa, format, block, cols) = (self.cpu.isa, self.format, self.block(), self.shape[1]);
        let nan = self.pass_over_nan(maxima, |maxima| {
            maxima.fill(A::Magnitude::default());
            self.raise_blocks(Nan::Ignored, maxima);
        });
        let (all, others) = maxima.split_at_mut(cols);
        for others in others.chunks_exact(cols) {
            for (top, other) in all.iter_mut().zip(others) {
                *top = (*top).max(*other);
            }
        }
        let way = self.scales(all, nan, scales);
        let mut memory = Buffer::take(Columns::memory(cols));
        let columns = Columns::new(isa, format, way, scales, &mut memory);
        let tally = Tally::new(stats.is_some());
        let blocks = self.x.chunks(block).zip(codes.chunks_mut(block));
        for_each(self.cpu.pool, blocks, |(x, codes)| {
            let mut counts = tally.start();
            for (x, codes) in x.chunks_exact(cols).zip(codes.chunks_exact_mut(cols)) {
                slice::encode_by_col(isa, format, &columns, x, codes, counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }
}
