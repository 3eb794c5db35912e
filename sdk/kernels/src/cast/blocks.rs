//! Casts with one scale a block.
//!
//! A task takes a tile, whole blocks of the matrix: of whole rows where there are enough of them, so that memory is
//! read in order, and few enough that the caches still hold a stripe of blocks when its scales are known and it is
//! read again. The maxima of a stripe are found column by column, or where a block lies in one row, piece by piece.

use std::ops::Range;

use super::slice::{self, Columns};
use super::source::Source;
use super::tally::{CastStats, Counts, Tally};
use super::{Cast, Quantized, TASK};
use crate::buffer::Buffer;
use crate::parallel::for_each;
use crate::scale::Nan;
use crate::{Rectangle, Rectangles, grid};

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

/// Memory of a task.
struct Memory<'a, M> {
    /// Maxima of the columns of a tile.
    columns: &'a mut [M],
    /// Maxima of blocks, and of the pieces of a row: as many as columns at most.
    pieces: &'a mut [M],
    /// For [`Columns`].
    scales: &'a mut [f32],
}

impl<'a, M: bytemuck::Pod> Memory<'a, M> {
    /// What [`Memory::new`] divides up.
    fn take(tile: &Tile<'_>) -> Buffer {
        let cols = tile.codes.cols().len();
        Buffer::take(2 * cols + Columns::memory(cols))
    }

    fn new(tile: &Tile<'_>, buffer: &'a mut [f32]) -> Self {
        let cols = tile.codes.cols().len();
        let (maxima, scales) = buffer.split_at_mut(2 * cols);
        let (columns, rest) = bytemuck::cast_slice_mut(maxima).split_at_mut(cols);
        Self { columns, pieces: &mut rest[..cols], scales }
    }
}

impl<A: Source> Cast<'_, A> {
    pub(super) fn blocks(&self, block: [usize; 2], out: Quantized<'_>, stats: Option<&mut CastStats>) {
        // No bigger than the matrix: the same blocks.
        let block = [block[0].min(self.shape[0]), block[1].min(self.shape[1])];
        let tally = Tally::new(stats.is_some());
        for_each(self.cpu.pool, self.tiles(block, self.tile_size(block), out), |mut tile| {
            let mut counts = tally.start();
            let mut buffer = Memory::<A::Magnitude>::take(&tile);
            let mut memory = Memory::new(&tile, &mut buffer);
            for down in tile.scales.rows() {
                if block[0] == 1 {
                    self.row(memory.pieces, down, &mut tile, counts.as_mut());
                } else {
                    self.stripe(&mut memory, down, &mut tile, None, counts.as_mut());
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
            let mut buffer = Memory::<A::Magnitude>::take(&by_col);
            let mut memory = Memory::new(&by_col, &mut buffer);
            for down in by_col.scales.rows() {
                self.stripe(&mut memory, down, &mut by_col, Some(&mut by_row), counts.as_mut());
            }
            tally.add(counts);
        });
        tally.finish(2 * self.x.len(), stats);
    }

    /// Rows and columns of a tile, whole blocks of them.
    fn tile_size(&self, block: [usize; 2]) -> [usize; 2] {
        let [rows, cols] = self.shape;
        // Tiles lie beside each other where there cannot be enough one below the other.
        let beside = self.tasks().div_ceil(rows.div_ceil(block[0]));
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
    fn row(&self, maxima: &mut [A::Magnitude], i: usize, tile: &mut Tile<'_>, counts: Option<&mut Counts>) {
        let x = &self.x[i * self.shape[1]..][tile.codes.cols()];
        let (length, scales) = (tile.block[1], tile.scales.row_mut(i));
        let maxima = &mut maxima[..scales.len()];
        slice::maxima_of_pieces(self.cpu.isa, Nan::Wins, x, length, maxima);
        let nan = self.pass_over_nan(maxima, |maxima| {
            slice::maxima_of_pieces(self.cpu.isa, Nan::Ignored, x, length, maxima);
        });
        let way = self.scales(maxima, nan, scales);
        slice::encode(self.cpu.isa, self.format, way, x, length, scales, tile.codes.row_mut(i), counts);
    }

    /// Casts the blocks of a tile that are `down`, in the grid of all; its rows `by_row` too, if asked.
    fn stripe(
        &self,
        memory: &mut Memory<'_, A::Magnitude>,
        down: usize,
        tile: &mut Tile<'_>,
        mut by_row: Option<&mut Tile<'_>>,
        mut counts: Option<&mut Counts>,
    ) {
        let Memory { columns, pieces, scales: ordered } = memory;
        let (rows, cols) = (tile.rows(down), tile.codes.cols());
        let x = |i: usize| &self.x[i * self.shape[1]..][cols.clone()];
        columns.fill(A::Magnitude::default());
        // A few rows at a time: the first-level cache holds them for their own cast.
        for first in rows.clone().step_by(4) {
            let few = first..rows.end.min(first + 4);
            self.raise(Nan::Wins, columns, few.clone(), cols.clone());
            if let Some(by_row) = &mut by_row {
                few.for_each(|i| self.row(pieces, i, by_row, counts.as_deref_mut()));
            }
        }
        let nan = self.pass_over_nan(columns, |columns| {
            columns.fill(A::Magnitude::default());
            self.raise(Nan::Ignored, columns, rows.clone(), cols.clone());
        });
        let (isa, format, length, scales) =
            (self.cpu.isa, self.format, tile.block[1], tile.scales.row_mut(down));
        if length == 1 {
            let way = self.scales(columns, nan, scales);
            let columns = Columns::new(isa, format, way, scales, ordered);
            for i in rows {
                let codes = tile.codes.row_mut(i);
                slice::encode_by_col(isa, format, &columns, x(i), codes, counts.as_deref_mut());
            }
        } else {
            let pieces = &mut pieces[..scales.len()];
            for (top, columns) in pieces.iter_mut().zip(columns.chunks(length)) {
                *top = columns.iter().fold(A::Magnitude::default(), |top, x| top.max(*x));
            }
            let way = self.scales(pieces, nan, scales);
            for i in rows {
                let codes = tile.codes.row_mut(i);
                slice::encode(isa, format, way, x(i), length, scales, codes, counts.as_deref_mut());
            }
        }
    }
}
