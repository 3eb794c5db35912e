//! Sums whose order is fixed by shapes.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Memory, Result, Shape, Source, source};

use super::Indices;
use super::launch::{count, elements, floats};
use crate::Tensor;
use crate::ops::{TOKEN_BLOCK, reduce::CHUNK};

pub(super) const SOURCE: Source = source!("reduce");

/// Threads of a block of all but [`add_chunks`].
const THREADS: u32 = 128;

/// Threads of a block of [`add_chunks`].
const WARP: u32 = 32;

/// Blocks of tokens whose contributions are added first.
pub(super) const fn token_blocks(tokens: usize) -> usize {
    tokens.div_ceil(TOKEN_BLOCK)
}

/// Floats that sums over `tokens` rows of `width` columns are made in.
pub const fn partial_floats(tokens: usize, width: usize) -> usize {
    token_blocks(tokens) * width
}

/// `total[j] += Σ_i rows[i][j]` over the first `n` rows, as long as `total`, added in ascending order first.
pub fn add_rows(card: &Card, rows: &Tensor, n: usize, total: &mut Tensor) -> Result<()> {
    floats(card, &[rows, total]);
    let width = elements(total);
    assert!(elements(rows) >= n * width, "{n} rows of {width}");
    let kernel = card.kernel(SOURCE, "add_rows_f32")?;
    let arguments = [rows.address(), count(n), count(width), total.address()];
    // SAFETY: a thread has a column of the n rows and of the total.
    unsafe { kernel.launch(card, Shape::each(width, THREADS), &arguments) }
}

/// Sums of squares that [`square_chunks`] writes for `n` elements.
pub const fn chunks(n: usize) -> usize {
    n.div_ceil(CHUNK)
}

/// Σ x² of each chunk, in f64, to `partial` from the `first` number on.
pub fn square_chunks(card: &Card, x: &Tensor, partial: &Memory, first: usize) -> Result<()> {
    floats(card, &[x]);
    let n = elements(x);
    assert!(partial.bytes() >= DOUBLE * (first + chunks(n)), "room for partial sums");
    let kernel = card.kernel(SOURCE, "square_chunks_f32")?;
    let arguments = [x.address(), n.into(), partial.at(DOUBLE * first)];
    // SAFETY: a block has a chunk of the n floats, and there is room for its sum.
    unsafe { kernel.launch(card, Shape::new(chunks(n), THREADS), &arguments) }
}

/// The sums of `partial` from each of `starts` to the next, in ascending order, to `totals`: those of all parameters at
/// once, since one that is added up leaves the card idle.
pub fn add_chunks(card: &Card, partial: &Memory, starts: Indices<'_>, totals: &Memory) -> Result<()> {
    let sums = starts.len().saturating_sub(1);
    assert!(
        starts.is_ascending() && partial.bytes() >= DOUBLE * starts.bound().saturating_sub(1),
        "sums there"
    );
    assert!(totals.bytes() >= DOUBLE * sums, "room for sums");
    let kernel = card.kernel(SOURCE, "add_chunks_f64")?;
    // SAFETY: a block has a stretch of the partial sums, and there is room for its sum.
    unsafe { kernel.launch(card, Shape::new(sums, WARP), &[partial.at(0), starts.address(), totals.at(0)]) }
}

/// Bytes of a sum of squares.
const DOUBLE: usize = size_of::<f64>();
