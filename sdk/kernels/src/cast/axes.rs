//! Casts with one scale a row, a column, or both.

use super::tally::{CastStats, Tally};
use super::{Cast, Quantized, TASK, slice};
use crate::Element;
use crate::buffer::Buffer;
use crate::parallel::for_each;

impl<A: Element> Cast<'_, A> {
    /// Elements of a task, whole rows of them.
    fn block(&self) -> usize {
        let cols = self.shape[1];
        (TASK / cols).max(1) * cols
    }

    /// By row; raises `maxima`, one for each column and block, where they are asked for.
    pub(super) fn rows(&self, out: Quantized<'_>, maxima: Option<&mut [u32]>, stats: Option<&mut CastStats>) {
        let Quantized { codes, scales } = out;
        let (block, cols) = (self.block(), self.shape[1]);
        let tally = Tally::new(stats.is_some());
        let mut maxima = maxima.map(|maxima| maxima.chunks_exact_mut(cols));
        let blocks = self.x.chunks(block).zip(codes.chunks_mut(block));
        let blocks = blocks.zip(scales.chunks_mut(block / cols));
        let blocks = blocks.map(|block| (block, maxima.as_mut().and_then(Iterator::next)));
        for_each(self.cpu.pool, blocks, |(((x, codes), scales), mut maxima)| {
            let mut counts = tally.start();
            let rows = x.chunks_exact(cols).zip(codes.chunks_exact_mut(cols)).zip(scales);
            for ((x, codes), scale) in rows {
                *scale = self.scale(slice::maximum(self.cpu.isa, self.rule.nan(), x));
                slice::encode(self.cpu.isa, self.format, x, *scale, codes, counts.as_mut());
                if let Some(maxima) = &mut maxima {
                    slice::raise(self.cpu.isa, self.rule.nan(), maxima, x);
                }
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }

    pub(super) fn cols(&self, out: Quantized<'_>, stats: Option<&mut CastStats>) {
        let cols = self.shape[1];
        self.with_maxima(|maxima| {
            let blocks = self.x.chunks(self.block()).zip(maxima.chunks_exact_mut(cols));
            for_each(self.cpu.pool, blocks, |(x, maxima)| {
                x.chunks_exact(cols).for_each(|x| slice::raise(self.cpu.isa, self.rule.nan(), maxima, x));
            });
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
    fn with_maxima(&self, body: impl FnOnce(&mut [u32])) {
        let blocks = self.x.len().div_ceil(self.block());
        let mut buffer = Buffer::take(blocks * self.shape[1]);
        buffer.fill(0.0);
        body(bytemuck::cast_slice_mut(&mut buffer));
    }

    fn cols_by_maxima(&self, maxima: &[u32], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        let Quantized { codes, scales } = out;
        let (block, cols) = (self.block(), self.shape[1]);
        for (j, scale) in scales.iter_mut().enumerate() {
            let maximum = maxima.iter().skip(j).step_by(cols).max();
            *scale = self.scale(maximum.copied().unwrap_or(0));
        }
        let tally = Tally::new(stats.is_some());
        let blocks = self.x.chunks(block).zip(codes.chunks_mut(block));
        for_each(self.cpu.pool, blocks, |(x, codes)| {
            let mut counts = tally.start();
            for (x, codes) in x.chunks_exact(cols).zip(codes.chunks_exact_mut(cols)) {
                slice::encode_by_col(self.cpu.isa, self.format, x, scales, codes, counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }
}
