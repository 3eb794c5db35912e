//! Attention by the products of Hopper's warp groups: which shapes it takes, and how its kernels are launched.

#![allow(unsafe_code)]

use fp8flow_cuda::{Arg, Result, Shape, Source};

use super::call::{Call, count};
use super::table::{Part, QUERIES, Table};
use super::{GROUPS_DKV, GROUPS_DQ, GROUPS_FORWARD};
use crate::DType;

/// Keys that a block takes for its own, as `attention_wgmma.cuh` has it.
pub(super) const KEYS: usize = 128;
/// Threads of a block: two groups of four warps that multiply, and one that fetches.
const THREADS: u32 = 384;

/// A kernel that goes through tiles.
pub(super) struct Pass {
    source: Source,
    name: &'static str,
    part: Part,
    /// Rows of a tile that a block walks, of two tensors at once, and such pairs that it has room for.
    rows: usize,
    stages: usize,
    /// Tensors of which a block keeps rows of its own.
    own: usize,
    /// Bytes that lie beside each row it walks.
    beside: usize,
    /// Whether there are as many blocks as a card runs at once, which take one tile after the other, or one a tile.
    stay: bool,
}

/// The passes for heads of one size.
pub(super) struct Passes {
    pub(super) forward: Pass,
    pub(super) dq: Pass,
    pub(super) dkv: Pass,
}

/// The passes of this call, if the card and the kernels can.
pub(super) fn passes(call: &Call<'_>) -> Option<Passes> {
    // As the entry points of the kernels have it.
    let (rows, stages) = match call.shape.head_dim {
        64 => (128, 2),
        128 => (64, 3),
        _ => return None,
    };
    if call.dtype != DType::Bf16 || !call.card.properties().warp_groups {
        return None;
    }
    let (queries, keys) = (Part::Queries, Part::Keys);
    let statistics = 2 * size_of::<f32>();
    Some(Passes {
        // Where blocks stay, one tile's keys come while the last one's sums are stored; where they do not, the card
        // evens out what tiles have to do. Each was measured on an H200.
        forward: Pass {
            source: GROUPS_FORWARD,
            name: "forward",
            part: queries,
            rows: 128,
            stages: 2,
            own: 1,
            beside: 0,
            stay: true,
        },
        dq: Pass {
            source: GROUPS_DQ,
            name: "dq",
            part: queries,
            rows,
            stages,
            own: 2,
            beside: 0,
            stay: false,
        },
        dkv: Pass {
            source: GROUPS_DKV,
            name: "dkv",
            part: keys,
            rows,
            stages,
            own: 2,
            beside: statistics,
            stay: false,
        },
    })
}

impl Pass {
    /// Bytes of shared memory of a block: its own rows, those that it walks, and barriers, two a tile, one for when it is
    /// full and one for when it is empty.
    fn shared(&self, call: &Call<'_>) -> usize {
        let walked = self.stages * self.rows;
        let barriers = 2 * (self.own + 2 * self.stages) * size_of::<u64>();
        call.rows(self.own * QUERIES + 2 * walked) + walked * self.beside + barriers
    }

    /// Runs it over all its tiles, given the addresses of its tensors.
    pub(super) fn run(&self, call: &Call<'_>, table: &Table, tensors: &[Arg]) -> Result<()> {
        let (card, shape) = (call.card, call.shape);
        let kernel =
            card.kernel(self.source, &format!("attention_{}_wgmma_{}_bf16", self.name, shape.head_dim))?;
        let (work, tiles) = table.tiles(self.part);
        let across = match self.part {
            Part::Queries => shape.heads,
            Part::Keys => shape.kv_heads,
        };
        let all = across * tiles;
        let blocks = if self.stay { all.min(card.properties().multiprocessors as usize) } else { all };
        let sizes = [shape.heads, shape.kv_heads, call.tokens].map(count);
        let arguments = [tensors, &[work], &sizes, &[shape.scale.into(), count(tiles)]].concat();
        let shape = Shape { shared: self.shared(call) as u32, ..Shape::new(blocks, THREADS) };
        // SAFETY: `expect` has held the tensors to their sizes; the table has so many tiles, of as many queries or keys as
        // a block takes, which lie within their sequences; the shared memory is what a block of this pass works in.
        unsafe { kernel.launch(card, shape, &arguments) }
    }
}
