//! The tiles of a micro-batch, as blocks of a card take them.

use fp8flow_cuda::{Arg, Memory, Result};

/// Queries that a block takes for its own, as `attention.cuh` has it.
pub(super) const QUERIES: usize = 128;
/// Keys that a block takes for its own, as `attention.cuh` has it.
pub(super) const KEYS: usize = 64;
/// Blocks along y that a card runs in one launch.
const MOST: usize = 65_535;

/// A tile: the micro-batch's index of its sequence's first token, the sequence's tokens, the first token of the tile.
type Work = [u32; 3];

/// The tiles of a micro-batch in memory of a card: once by queries, once by keys.
///
/// Blocks start in the order of the table. The tiles with most to do come first, so that none of them is left when the
/// others are done.
#[derive(Debug)]
pub struct Table {
    memory: Memory,
    sequences: Vec<u32>,
    /// Keys of a tile.
    size: usize,
    queries: usize,
    keys: usize,
}

/// Whose tiles.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Queries,
    Keys,
}

impl Table {
    /// Bytes that it takes for micro-batches of at most `tokens` tokens, however short their sequences are.
    pub const fn bytes(tokens: usize) -> usize {
        2 * tokens * size_of::<Work>()
    }

    /// A table in `memory`, of [`Table::bytes`] bytes.
    pub const fn new(memory: Memory) -> Self {
        Self { memory, sequences: Vec::new(), size: 0, queries: 0, keys: 0 }
    }

    /// Asks the stream to write the tiles of these sequences, `size` keys each, unless they are there already: the
    /// layers of a model ask for the same ones, one after the other.
    pub(super) fn set(&mut self, sequences: &[u32], size: usize) -> Result<()> {
        if self.sequences == sequences && self.size == size {
            return Ok(());
        }
        self.sequences.clear();
        let (queries, keys) = (by_queries(sequences), by_keys(sequences, size));
        self.size = size;
        (self.queries, self.keys) = (queries.len(), keys.len());
        let all: Vec<Work> = queries.into_iter().chain(keys).collect();
        self.memory.write(0, bytemuck::cast_slice(&all))?;
        self.sequences.extend_from_slice(sequences);
        Ok(())
    }

    /// Where the tiles of a part lie, and how many they are.
    pub(super) fn tiles(&self, part: Part) -> (Arg, usize) {
        let (from, count) = self.stretch(part);
        (self.memory.at(from * size_of::<Work>()), count)
    }

    /// The launches that it takes to go through a part with tiles along y: where the tiles of each lie, and how many
    /// they are.
    pub(super) fn launches(&self, part: Part) -> impl Iterator<Item = (Arg, usize)> {
        let (from, count) = self.stretch(part);
        portions(count).map(move |(done, tiles)| (self.memory.at((from + done) * size_of::<Work>()), tiles))
    }

    fn stretch(&self, part: Part) -> (usize, usize) {
        match part {
            Part::Queries => (0, self.queries),
            Part::Keys => (self.queries, self.keys),
        }
    }
}

/// `count` tiles, in portions that a launch can take: how many were before, and how many these are.
fn portions(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(MOST).map(move |done| (done, MOST.min(count - done)))
}

/// Tiles of `size` tokens of each sequence.
fn cut(sequences: &[u32], size: usize) -> impl Iterator<Item = Work> {
    sequences.windows(2).flat_map(move |ends| {
        let (start, len) = (ends[0], ends[1] - ends[0]);
        (0..len).step_by(size).map(move |first| [start, len, first])
    })
}

/// Tiles of queries, those that see most keys first.
fn by_queries(sequences: &[u32]) -> Vec<Work> {
    let mut tiles: Vec<Work> = cut(sequences, QUERIES).collect();
    tiles.sort_by_key(|&[_, len, first]| std::cmp::Reverse(len.min(first + QUERIES as u32)));
    tiles
}

/// Tiles of `size` keys, those that most queries see first.
fn by_keys(sequences: &[u32], size: usize) -> Vec<Work> {
    let mut tiles: Vec<Work> = cut(sequences, size).collect();
    tiles.sort_by_key(|&[_, len, first]| std::cmp::Reverse(len - first));
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_in_one_tile_and_the_longest_start_first() {
        let sequences = [0, 1, 1, 130, 194];
        assert_eq!(by_queries(&sequences), [[1, 129, 128], [1, 129, 0], [130, 64, 0], [0, 1, 0]]);
        assert_eq!(by_keys(&sequences, 128), [[1, 129, 0], [130, 64, 0], [0, 1, 0], [1, 129, 128]]);
        assert_eq!(
            by_keys(&sequences, KEYS),
            [[1, 129, 0], [1, 129, 64], [130, 64, 0], [0, 1, 0], [1, 129, 128]]
        );
    }

    #[test]
    fn a_launch_has_no_more_blocks_than_a_card_runs() {
        assert_eq!(portions(0).count(), 0);
        assert_eq!(portions(MOST).collect::<Vec<_>>(), [(0, MOST)]);
        assert_eq!(portions(MOST + 1).collect::<Vec<_>>(), [(0, MOST), (MOST, 1)]);
    }

    #[test]
    fn the_shortest_sequences_fill_the_bytes() {
        let sequences: Vec<u32> = (0..=40).collect();
        let tiles = by_queries(&sequences).len() + by_keys(&sequences, KEYS).len();
        assert_eq!(tiles * size_of::<Work>(), Table::bytes(40));
    }
}
