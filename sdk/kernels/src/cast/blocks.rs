//! Casts with one scale a block.
//!
//! A task takes a tile, whole blocks of the matrix: of whole rows where there are enough of them, so that memory is
//! read in order, and few enough that the caches still hold a stripe of blocks when its scales are known and it is
//! read again. The maxima of a stripe are found column by column, or where a block lies in one row, piece by piece.

use std::ops::Range;

use super::tally::{CastStats, Counts, Tally};
use super::{Cast, Quantized, TASK, slice};
use crate::buffer::Buffer;
use crate::parallel::for_each;
use crate::{Element, Rectangle, Rectangles, grid};

/// Elements of a stripe at most: 1 MiB of bf16.
const STRIPE: usize = 1 << 19;

/// Columns of a tile at least, where there are as many: some cache lines of each row.
const NARROWEST: usize = 256;

/// One cast of a tile: the size of its blocks, its codes and its scales.
struct Tile<'a> {
    block: [usize; 2],
    codes: Rectangle<'a, u8>,
    scales: Rectangle<'a, f32>,
}

impl Tile<'_> {
    /// The rows of the blocks that are `down`, in the grid of all.
    fn rows(&self, down: usize) -> Range<usize> {
        let first = down * self.block[0];
        first..self.codes.rows().end.min(first + self.block[0])
    }
}

/// Bits of absolute maxima: memory of a task.
struct Maxima<'a> {
    /// Of the columns of a tile.
    columns: &'a mut [u32],
    /// Of the pieces of a row, as many as columns at most.
    pieces: &'a mut [u32],
}

impl<'a> Maxima<'a> {
    fn memory(tile: &Tile<'_>) -> Buffer {
        Buffer::take(2 * tile.codes.cols().len())
    }

    fn new(memory: &'a mut [f32]) -> Self {
        let half = memory.len() / 2;
        let (columns, pieces) = bytemuck::cast_slice_mut(memory).split_at_mut(half);
        Self { columns, pieces }
    }
}

impl<A: Element> Cast<'_, A> {
    pub(super) fn blocks(&self, block: [usize; 2], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        // No bigger than the matrix: the same blocks.
        let block = [block[0].min(self.shape[0]), block[1].min(self.shape[1])];
        let tally = Tally::new(stats.is_some());
        for_each(self.cpu.pool, self.tiles(block, self.tile_size(block), out), |mut tile| {
            let mut counts = tally.start();
            let mut memory = Maxima::memory(&tile);
            let mut maxima = Maxima::new(&mut memory);
            for down in tile.scales.rows() {
                if block[0] == 1 {
                    self.row(&mut maxima, down, &mut tile, counts.as_mut());
                } else {
                    self.stripe(&mut maxima, down, &mut tile, None, counts.as_mut());
                }
            }
            tally.add(counts);
        });
        tally.finish(self.x.len(), stats);
    }

    pub(super) fn row_and_col_blocks(
        &self,
        length: usize,
        by_row: Quantized<'_>,
        by_col: Quantized<'_>,
        stats: Option<&mut CastStats>,
    ) {
        let length = [length.min(self.shape[0]), length.min(self.shape[1])];
        let size = self.tile_size(length);
        let tally = Tally::new(stats.is_some());
        let by_row = self.tiles([1, length[1]], size, by_row);
        let by_col = self.tiles([length[0], 1], size, by_col);
        for_each(self.cpu.pool, by_row.zip(by_col), |(mut by_row, mut by_col)| {
            let mut counts = tally.start();
            let mut memory = Maxima::memory(&by_col);
            let mut maxima = Maxima::new(&mut memory);
            for down in by_col.scales.rows() {
                self.stripe(&mut maxima, down, &mut by_col, Some(&mut by_row), counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(2 * self.x.len(), stats);
    }

    /// Rows and columns of a tile, whole blocks of them.
    fn tile_size(&self, block: [usize; 2]) -> [usize; 2] {
        let [rows, cols] = self.shape;
        let threads = self.cpu.pool.threads();
        // A few tiles for each thread, beside each other where they cannot lie one below the other.
        let tiles = if threads == 1 { 1 } else { 4 * threads };
        let beside = tiles.div_ceil(rows.div_ceil(block[0]));
        let width = cols.div_ceil(beside).min(STRIPE / block[0]).max(NARROWEST).min(cols);
        let width = width.next_multiple_of(block[1]);
        let stripes = if width < cols { 1 } else { (TASK / (block[0] * cols)).max(1) };
        [block[0] * stripes, width]
    }

    /// The tiles of `[height, width]`, each with its codes and scales.
    fn tiles<'t>(
        &self,
        block: [usize; 2],
        [height, width]: [usize; 2],
        Quantized { codes, scales }: Quantized<'t>,
    ) -> impl ExactSizeIterator<Item = Tile<'t>> + Send + use<'t, A> {
        let [rows, cols] = self.shape;
        let [down, across] = grid(self.shape, block);
        let codes = Rectangles::new(codes, cols, 0..rows, 0..cols, [height, width]);
        let size = [height / block[0], width / block[1]];
        let scales = Rectangles::new(scales, across, 0..down, 0..across, size);
        codes.zip(scales).map(move |(codes, scales)| Tile { block, codes, scales })
    }

    /// Casts row `i` of a tile whose blocks are pieces of rows.
    fn row(&self, maxima: &mut Maxima<'_>, i: usize, tile: &mut Tile<'_>, counts: Option<&mut Counts>) {
        let x = &self.x[i * self.shape[1]..][tile.codes.cols()];
        let (length, scales) = (tile.block[1], tile.scales.row_mut(i));
        let pieces = &mut maxima.pieces[..scales.len()];
        slice::maxima_of_pieces(self.cpu.isa, self.rule.nan(), x, length, pieces);
        for (scale, maximum) in scales.iter_mut().zip(pieces) {
            *scale = self.scale(*maximum);
        }
        self.encode(x, length, scales, tile.codes.row_mut(i), counts);
    }

    /// Casts the blocks of a tile that are `down`, in the grid of all; its rows `by_row` too, if asked.
    fn stripe(
        &self,
        maxima: &mut Maxima<'_>,
        down: usize,
        tile: &mut Tile<'_>,
        mut by_row: Option<&mut Tile<'_>>,
        mut counts: Option<&mut Counts>,
    ) {
        let (rows, cols) = (tile.rows(down), tile.codes.cols());
        let x = |i: usize| &self.x[i * self.shape[1]..][cols.clone()];
        maxima.columns.fill(0);
        for i in rows.clone() {
            if let Some(by_row) = &mut by_row {
                self.row(maxima, i, by_row, counts.as_deref_mut());
            }
            slice::raise(self.cpu.isa, self.rule.nan(), maxima.columns, x(i));
        }
        let (length, scales) = (tile.block[1], tile.scales.row_mut(down));
        for (scale, maxima) in scales.iter_mut().zip(maxima.columns.chunks(length)) {
            *scale = self.scale(maxima.iter().fold(0, |top, x| *x.max(&top)));
        }
        for i in rows {
            self.encode(x(i), length, scales, tile.codes.row_mut(i), counts.as_deref_mut());
        }
    }

    /// Codes of a row, or of a part of it, with a scale for each `length` elements.
    fn encode(&self, x: &[A], length: usize, scales: &[f32], codes: &mut [u8], counts: Option<&mut Counts>) {
        if length == 1 {
            slice::encode_by_col(self.cpu.isa, self.format, x, scales, codes, counts);
        } else {
            slice::encode_by_piece(self.cpu.isa, self.format, x, length, scales, codes, counts);
        }
    }
}
