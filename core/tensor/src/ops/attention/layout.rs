//! Where the tiles of an attention lie: in the sequences of a micro-batch, in the heads of an activation, in a task's
//! buffer.

use std::ops::Range;

use fp8flow_kernels::transpose::transpose;
use fp8flow_kernels::{Element, Isa, Rectangle, Rectangles, multiversion};

use super::super::tile::{Part, WIDTH};

/// Queries and keys of a tile; part of the numerics revision.
pub(super) const TILE: usize = 64;

/// A tile of one sequence: `len` tokens from the sequence's token `first` on.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) sequence_start: usize,
    pub(super) sequence_len: usize,
    pub(super) first: usize,
    pub(super) len: usize,
}

impl Span {
    /// The micro-batch's index of the span's first token.
    pub(super) fn token(self) -> usize {
        self.sequence_start + self.first
    }

    /// Which of a tile's `keys`, its rows, these queries see, its columns.
    pub(super) fn seen(self, keys: Self) -> Part {
        if self.first == keys.first { Part::Upper } else { Part::All }
    }

    fn at(self, first: usize) -> Self {
        Self { first, len: TILE.min(self.sequence_len - first), ..self }
    }

    /// The spans of the same sequence from its start up to and including this one.
    pub(super) fn up_to(self) -> impl Iterator<Item = Self> {
        (0..=self.first).step_by(TILE).map(move |first| self.at(first))
    }

    /// The spans of the same sequence from this one on.
    pub(super) fn onwards(self) -> impl Iterator<Item = Self> + Clone {
        (self.first..self.sequence_len).step_by(TILE).map(move |first| self.at(first))
    }
}

/// The tiles of an activation of heads, in the order in which [`cut`] hands them out.
pub(super) fn places(heads: usize, sequences: &[u32]) -> impl Iterator<Item = (Span, usize)> + Clone + Send {
    sequences.windows(2).flat_map(move |ends| {
        let (sequence_start, sequence_len) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        let start = Span { sequence_start, sequence_len, first: 0, len: TILE.min(sequence_len) };
        (0..heads).flat_map(move |head| start.onwards().map(move |span| (span, head)))
    })
}

/// The first tile of every sequence that is not empty, for each head.
pub(super) fn sequence_places(
    heads: usize,
    sequences: &[u32],
) -> impl Iterator<Item = (Span, usize)> + Clone + Send {
    places(heads, sequences).filter(|(span, _)| span.first == 0)
}

/// The parts of an activation of heads, of at most so many rows of a sequence and so many columns, each to be written by
/// one task.
pub(super) fn cut<'a, A: Element>(
    mut rest: &'a mut [A],
    width: usize,
    part: [usize; 2],
    sequences: &'a [u32],
) -> impl Iterator<Item = Rectangle<'a, A>> + Send {
    sequences.windows(2).flat_map(move |ends| {
        let len = (ends[1] - ends[0]) as usize;
        let own = rest.split_off_mut(..len * width).expect("a row for each token");
        Rectangles::new(own, width, 0..len, 0..width, part)
    })
}

/// Where a head's rows lie in a `[T, heads · head_dim]` activation.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, A> {
    data: &'a [A],
    width: usize,
    at: usize,
    dim: usize,
}

impl<'a, A: Element> Head<'a, A> {
    pub(super) fn new(data: &'a [A], heads: usize, dim: usize, index: usize) -> Self {
        Self { data, width: heads * dim, at: index * dim, dim }
    }

    #[inline(always)]
    pub(super) fn row(self, token: usize) -> &'a [A] {
        &self.data[token * self.width + self.at..][..self.dim]
    }
}

multiversion! {
    /// The span's rows as f32, `[TILE, padded]`; what lies beyond is zero.
    pub(super) fn load_rows<A: Element>(head: Head<'_, A>, span: Span, padded: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(padded).enumerate() {
            let mut filled = 0;
            if i < span.len {
                let x = head.row(span.token() + i);
                filled = x.len();
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x.widen();
                }
            }
            out[filled..].fill(0.0);
        }
    }
}

/// The span's rows as columns, `[padded, TILE]`, by way of `rows`; what lies beyond is zero.
pub(super) fn load_columns<A: Element>(
    isa: Isa,
    head: Head<'_, A>,
    span: Span,
    padded: usize,
    rows: &mut [f32],
    out: &mut [f32],
) {
    load_rows(isa, head, span, padded, rows);
    transpose(isa, rows, padded, out);
}

/// Row length of a tile of head vectors.
pub(super) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(WIDTH)
}

/// What is left of a task's buffer.
pub(super) struct Rest<'a>(pub(super) &'a mut [f32]);

impl<'a> Rest<'a> {
    /// The next `width` floats for each token of a tile.
    pub(super) fn take(&mut self, width: usize) -> &'a mut [f32] {
        self.0.split_off_mut(..TILE * width).expect("a buffer for all tiles")
    }
}

multiversion! {
    /// Copies a tile's rows to where they belong: to some rows of the matrix, and some columns of a part of it.
    pub(super) fn store<A: Element>(
        tile: &[f32], padded: usize, rows: Range<usize>, cols: Range<usize>, out: &mut Rectangle<'_, A>,
    ) {
        for (i, tile) in rows.zip(tile.chunks_exact(padded)) {
            for (out, x) in out.row_mut(i)[cols.clone()].iter_mut().zip(tile) {
                *out = A::narrow(*x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_rectangles_come_in_the_same_order() {
        let (heads, dim, sequences) = (3, 4, [0, 1, 1, 70, 200]);
        let mut data = vec![0.0_f32; 200 * heads * dim];
        let rectangles: Vec<_> = cut(&mut data, heads * dim, [TILE, dim], &sequences).collect();
        let places: Vec<_> = places(heads, &sequences).collect();
        assert_eq!((places.len(), rectangles.len()), (heads * (1 + 2 + 3), heads * (1 + 2 + 3)));
        for ((span, head), rectangle) in places.into_iter().zip(rectangles) {
            assert_eq!(rectangle.rows(), span.first..span.first + span.len);
            assert_eq!(rectangle.cols(), head * dim..(head + 1) * dim);
        }
    }
}
