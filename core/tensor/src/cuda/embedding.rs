//! Rows of a table by token, and their gradients.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Memory, Result, Shape, Source, source};

use super::Indices;
use super::launch::{activations, column_blocks, count, floats, launch};
use crate::Tensor;

pub(super) const SOURCE: Source = source!("embedding");

/// Threads of a block.
const THREADS: u32 = 128;

/// `out[t] = table[ids[t]]`.
pub fn forward(card: &Card, ids: Indices<'_>, table: &Tensor, out: &mut Tensor) -> Result<()> {
    let dtype = activations(card, &[out]);
    floats(card, &[table]);
    assert_eq!(table.cols(), out.cols(), "rows of one width");
    assert!(ids.len() == out.rows() && ids.bound() <= table.rows(), "rows of the table");
    let arguments = [ids.address(), table.address(), out.address(), count(out.cols())];
    // SAFETY: a block has a row of out; ids are rows of the table.
    unsafe { launch(card, SOURCE, "embedding", dtype, Shape::new(out.rows(), THREADS), &arguments) }
}

/// The tokens of a micro-batch by their ids, on a card.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// The ids, by token.
    ids: Indices<'a>,
    /// Where each group starts in `order` and, last, where the last one ends.
    starts: Indices<'a>,
    /// The tokens, those of one id together and ascending.
    order: Indices<'a>,
}

impl<'a> Groups<'a> {
    /// Bytes for `tokens` tokens.
    pub const fn bytes(tokens: usize) -> usize {
        Indices::bytes(3 * tokens + 1)
    }

    /// Sorts the tokens by their ids, and copies them to `memory`, from byte `offset` on, a multiple of 4.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn upload(memory: &'a Memory, offset: usize, ids: &[u32]) -> Result<Self> {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_by_key(|&token| ids[token as usize]);
        let mut starts = vec![0];
        starts.extend(order.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]).scan(0, |end, group| {
            *end += group.len() as u32;
            Some(*end)
        }));
        let after = |n: usize| offset + Indices::bytes(n);
        Ok(Self {
            ids: Indices::upload(memory, offset, ids)?,
            order: Indices::upload(memory, after(ids.len()), &order)?,
            starts: Indices::upload(memory, after(2 * ids.len()), &starts)?,
        })
    }

    /// The ids by token, as [`forward`] takes them.
    pub fn ids(&self) -> Indices<'a> {
        self.ids
    }
}

/// `dtable[ids[t]] += dout[t]`, in ascending `t`.
pub fn backward(card: &Card, groups: Groups<'_>, dout: &Tensor, dtable: &mut Tensor) -> Result<()> {
    let dtype = activations(card, &[dout]);
    floats(card, &[dtable]);
    assert_eq!(dtable.cols(), dout.cols(), "rows of one width");
    let Groups { ids, starts, order } = groups;
    assert!(ids.len() == dout.rows() && ids.bound() <= dtable.rows(), "rows of the table");
    let arguments = [
        ids.address(),
        starts.address(),
        order.address(),
        dout.address(),
        dtable.address(),
        count(dout.cols()),
    ];
    let blocks = [starts.len() - 1, column_blocks(dout.cols(), dtype, THREADS as usize), 1];
    let shape = Shape { blocks, ..Shape::new(1, THREADS) };
    // SAFETY: each token is in one group, of its id, which is a row of the table; no group is empty.
    unsafe { launch(card, SOURCE, "embedding_backward", dtype, shape, &arguments) }
}
