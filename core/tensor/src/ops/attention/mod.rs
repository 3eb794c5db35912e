//! Causal grouped-query attention in tiles (Dao 2023, "FlashAttention-2"): scores live in a tile of
//! `TILE` × `TILE`, never in a `T × T` matrix.
//!
//! Forward: one task a (sequence, head, tile of queries). Softmax statistics and all sums are f32; key tiles ascend, and
//! so do the query heads of a group. What is multiplied with an activation is rounded to its type first, as tensor cores
//! need it, so that a card's bits are near. What a query does not see is left out of products, but for up to three
//! elements on the diagonal.
//!
//! A task keeps its own tile transposed and takes the others as they lie. Where it holds the queries, a score tile has
//! a row for each key: the softmax runs down the rows, a vector of queries at a time.

mod backward;
mod layout;
mod scores;

use fp8flow_kernels::parallel::for_each_of;
use fp8flow_kernels::{Buffer, Cpu, Element, math};

pub(crate) use self::backward::backward;
use self::layout::{Head, Rest, TILE, cut, load_columns, load_rows, padded, places, store};
use self::scores::{products, round, scale_rows, weigh};
use super::tile::accumulate_transposed;
use crate::AttentionShape;

/// Floats that forward and backward work in beside those of their tasks: sums by head and tile, sums by head and token.
/// As if no tile were less than half full, which those of very short sequences are.
pub(crate) fn floats(shape: AttentionShape, tokens: usize) -> usize {
    2 * shape.heads * tokens.next_multiple_of(TILE)
}

/// Floats that the tasks of `threads` threads work in, at most.
pub(crate) fn task_floats(shape: AttentionShape, tokens: usize, threads: usize) -> usize {
    let wide = padded(shape.head_dim);
    threads * TILE * (backward::TILES * wide + 2 * TILE) + backward::kept_floats(shape, tokens, threads)
}

pub(crate) fn forward<A: Element>(
    cpu: Cpu<'_>,
    shape: AttentionShape,
    sequences: &[u32],
    q: &[A],
    k: &[A],
    v: &[A],
    out: &mut [A],
    lse: &mut [f32],
) {
    let AttentionShape { heads, kv_heads, head_dim: dim, scale } = shape;
    let (isa, wide, tokens, group) = (cpu.isa, padded(dim), lse.len() / heads, heads / kv_heads);
    let places = places(heads, sequences);
    let tasks = places.clone().count();
    let mut sums = Buffer::take(tasks * TILE);
    let items =
        places.clone().zip(cut(out, heads * dim, [TILE, dim], sequences)).zip(sums.chunks_exact_mut(TILE));
    for_each_of(cpu.pool, tasks, items, |(((queries, h), mut out), sum)| {
        let mut buffer = Buffer::take(TILE * (4 * wide + TILE + 2));
        let mut rest = Rest(&mut buffer);
        let (qt, scores, mixed) = (rest.take(wide), rest.take(TILE), rest.take(wide));
        let (ks, vs) = (rest.take(wide), rest.take(wide));
        let (top, fade) = (rest.take(1), rest.take(1));
        load_columns(isa, Head::new(q, heads, dim, h), queries, wide, ks, qt);
        mixed.fill(0.0);
        top.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for keys in queries.up_to() {
            load_rows(isa, Head::new(k, kv_heads, dim, h / group), keys, wide, ks);
            load_rows(isa, Head::new(v, kv_heads, dim, h / group), keys, wide, vs);
            let seen = queries.seen(keys);
            products(isa, dim, keys.len, seen, ks, qt, scores);
            weigh(isa, scores, seen, keys, scale, top, sum, fade);
            scale_rows(isa, mixed, wide, fade);
            if size_of::<A>() < size_of::<f32>() {
                round::<A>(isa, scores, keys, top);
            }
            accumulate_transposed(isa, [queries.len, wide, keys.len], seen, scores, TILE, vs, mixed);
        }
        for ((sum, top), inverse) in sum.iter_mut().zip(top).zip(&mut *fade) {
            *inverse = 1.0 / *sum;
            *sum = *top + math::ln(*sum);
        }
        scale_rows(isa, mixed, wide, fade);
        store(isa, mixed, wide, out.rows(), 0..dim, &mut out);
    });
    for ((queries, h), sums) in places.zip(sums.chunks_exact(TILE)) {
        lse[h * tokens + queries.token()..][..queries.len].copy_from_slice(&sums[..queries.len]);
    }
}
