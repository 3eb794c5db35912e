//! Casts with one scale a block.
//!
//! A task takes a tile: whole blocks, few enough for the second-level cache, so that memory is read once. Where a
//! block is a piece of a row, the tile's rows are cast one after the other; where it has several, their absolute maxima
//! are found column by column first.

use super::tally::{CastStats, Counts, Tally};
use super::{Quantized, TASK, slice};
use crate::buffer::Buffer;
use crate::parallel::for_each;
use crate::scale::ScaleRule;
use crate::{Cpu, Element, Fp8, Matrix, Rectangle, Rectangles, grid};

/// Columns of a tile at least, where there are as many: some cache lines of each row.
const NARROWEST: usize = 64;

/// What all tasks of a cast have in common; there are elements.
pub(super) struct Cast<'a, A> {
    cpu: &'a Cpu<'a>,
    x: &'a [A],
    shape: [usize; 2],
    format: Fp8,
    rule: ScaleRule,
}

/// One cast of a tile: the block, its codes and its scales.
struct Tile<'a> {
    block: [usize; 2],
    codes: Rectangle<'a, u8>,
    scales: Rectangle<'a, f32>,
}

impl<'a, A: Element> Cast<'a, A> {
    pub(super) fn new(
        cpu: &'a Cpu<'a>,
        x: &'a [A],
        matrix: Matrix<'_>,
        format: Fp8,
        rule: ScaleRule,
    ) -> Self {
        Self { cpu, x, shape: [matrix.rows, matrix.cols], format, rule }
    }

    pub(super) fn blocks(&self, block: [usize; 2], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        // No bigger than the matrix: the same blocks.
        let block = [block[0].min(self.shape[0]), block[1].min(self.shape[1])];
        let size = self.tile_size(block);
        let tally = Tally::new(stats.is_some());
        for_each(self.cpu.pool, self.tiles(block, size, out), |tile| {
            let mut counts = tally.start();
            self.tile(tile, counts.as_mut());
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }

    pub(super) fn rows_and_cols(
        &self,
        length: usize,
        by_row: Quantized<'_>,
        by_col: Quantized<'_>,
        stats: Option<&mut CastStats>,
    ) {
        let (row, col) = ([1, length.min(self.shape[1])], [length.min(self.shape[0]), 1]);
        let size = self.tile_size([col[0], row[1]]);
        let tally = Tally::new(stats.is_some());
        let tiles = self.tiles(row, size, by_row).zip(self.tiles(col, size, by_col));
        for_each(self.cpu.pool, tiles, |(by_row, by_col)| {
            let mut counts = tally.start();
            self.tile(by_row, counts.as_mut());
            self.tile(by_col, counts.as_mut());
            tally.add(counts);
        });
        tally.finish(2 * self.x.len(), stats);
    }

    /// Rows and columns of a tile, whole blocks of them.
    fn tile_size(&self, block: [usize; 2]) -> [usize; 2] {
        let [rows, cols] = self.shape;
        let width = (TASK / block[0]).max(NARROWEST).min(cols).next_multiple_of(block[1]);
        let height = if width < cols { 1 } else { TASK / (block[0] * cols) };
        [(block[0] * height.max(1)).min(rows.next_multiple_of(block[0])), width]
    }

    /// The tiles of the size `[height, width]`, each with its codes and scales.
    fn tiles<'t>(
        &self,
        block: [usize; 2],
        [height, width]: [usize; 2],
        out: Quantized<'t>,
    ) -> impl ExactSizeIterator<Item = Tile<'t>> + Send + use<'t, A> {
        let [rows, cols] = self.shape;
        let [down, across] = grid(self.shape, block);
        let codes = Rectangles::new(out.codes, cols, 0..rows, 0..cols, [height, width]);
        let size = [height / block[0], width / block[1]];
        let scales = Rectangles::new(out.scales, across, 0..down, 0..across, size);
        codes.zip(scales).map(move |(codes, scales)| Tile { block, codes, scales })
    }

    fn tile(&self, tile: Tile<'_>, counts: Option<&mut Counts>) {
        if tile.block[0] == 1 { self.tile_of_rows(tile, counts) } else { self.tile_of_blocks(tile, counts) }
    }

    /// The elements of a row of a tile.
    fn row(&self, i: usize, tile: &Rectangle<'_, u8>) -> &[A] {
        &self.x[i * self.shape[1]..][tile.cols()]
    }

    fn tile_of_rows(&self, tile: Tile<'_>, mut counts: Option<&mut Counts>) {
        let Tile { block, mut codes, mut scales } = tile;
        for i in codes.rows() {
            let x = self.row(i, &codes);
            let out = Quantized { codes: codes.row_mut(i), scales: scales.row_mut(i) };
            slice::cast_pieces(self.cpu.isa, self.format, self.rule, block[1], x, out, counts.as_deref_mut());
        }
    }

    fn tile_of_blocks(&self, tile: Tile<'_>, mut counts: Option<&mut Counts>) {
        let Tile { block, mut codes, mut scales } = tile;
        let isa = self.cpu.isa;
        let width = codes.cols().len();
        let mut buffers = [Buffer::take(width), Buffer::take(width)];
        let [maxima, factors] = &mut buffers;
        let maxima: &mut [u32] = bytemuck::cast_slice_mut(maxima);
        for (down, first) in scales.rows().zip(codes.rows().step_by(block[0])) {
            let rows = first..codes.rows().end.min(first + block[0]);
            maxima.fill(0);
            for i in rows.clone() {
                slice::raise(isa, self.rule.nan(), maxima, self.row(i, &codes));
            }
            let columns = maxima.chunks(block[1]).zip(factors.chunks_mut(block[1]));
            for (scale, (maxima, factors)) in scales.row_mut(down).iter_mut().zip(columns) {
                let maximum = maxima.iter().fold(0, |top, x| *x.max(&top));
                *scale = self.rule.scale(f32::from_bits(maximum), self.format);
                factors.fill(*scale);
            }
            for i in rows {
                let x = self.row(i, &codes);
                slice::encode_by_col(isa, self.format, x, factors, codes.row_mut(i), counts.as_deref_mut());
            }
        }
    }
}
