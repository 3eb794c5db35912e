//! Causal grouped-query attention in tiles (Dao 2023, "FlashAttention-2"): scores live in a tile of
//! `TILE` × `TILE`, never in a `T × T` matrix.
//!
//! Forward: one task a (sequence, head, tile of queries). Backward: one task a (sequence, head, tile of queries) for
//! `dq` and one a (sequence, key-value head, tile of keys) for `dk` and `dv`, so nothing is added by two tasks.
//! Softmax statistics and all sums are f32; key tiles ascend, and so do the query heads of a group. What is multiplied
//! with an activation is rounded to its type first, as tensor cores need it, so that a card's bits are near.
//!
//! A task keeps its own tile transposed and takes the others as they lie. Where it holds the queries, a score tile has
//! a row for each key: the softmax runs down the rows, a vector of queries at a time.

mod layout;
mod scores;

use fp8flow_kernels::parallel::{for_each, for_each_of};
use fp8flow_kernels::{Buffer, Cpu, Element, math};

use self::layout::{Head, Rest, Span, TILE, cut, load_columns, load_rows, padded, places, store};
use self::scores::{differentiate, differentiate_by_query, dot, mix, products, round, scale_rows, weigh};
use crate::AttentionShape;

/// Floats that forward and backward work in beside those of their tasks: sums by head and tile, sums by head and token.
/// As if no tile were less than half full, which those of very short sequences are.
pub(crate) fn floats(shape: AttentionShape, tokens: usize) -> usize {
    2 * shape.heads * tokens.next_multiple_of(TILE)
}

/// Floats that a task works in, at most.
pub(crate) fn task_floats(shape: AttentionShape) -> usize {
    TILE * (6 * padded(shape.head_dim) + 2 * TILE)
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
    let items = places.clone().zip(cut(out, heads * dim, dim, sequences)).zip(sums.chunks_exact_mut(TILE));
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
            products(isa, dim, keys.len, ks, qt, scores);
            weigh(isa, scores, queries, keys, scale, top, sum, fade);
            scale_rows(isa, mixed, wide, fade);
            if size_of::<A>() < size_of::<f32>() {
                round::<A>(isa, scores, keys, top);
            }
            mix(isa, [queries.len, wide, keys.len], scores, vs, mixed);
        }
        for ((sum, top), inverse) in sum.iter_mut().zip(top).zip(&mut *fade) {
            *inverse = 1.0 / *sum;
            *sum = *top + math::ln(*sum);
        }
        scale_rows(isa, mixed, wide, fade);
        store(isa, mixed, wide, &mut out);
    });
    for ((queries, h), sums) in places.zip(sums.chunks_exact(TILE)) {
        lse[h * tokens + queries.token()..][..queries.len].copy_from_slice(&sums[..queries.len]);
    }
}

/// What backward knows of one query head: its rows, their gradients, and two statistics of each.
#[derive(Clone, Copy)]
struct Saved<'a, A> {
    q: Head<'a, A>,
    dout: Head<'a, A>,
    lse: &'a [f32],
    /// `⟨dout, out⟩`, which is `Σ_key weight · dweight`.
    delta: &'a [f32],
}

impl<A> Saved<'_, A> {
    fn statistics(&self, span: Span) -> (&[f32], &[f32]) {
        let at = span.token()..span.token() + span.len;
        (&self.lse[at.clone()], &self.delta[at])
    }
}

pub(crate) fn backward<A: Element>(
    cpu: Cpu<'_>,
    shape: AttentionShape,
    sequences: &[u32],
    dout: &[A],
    q: &[A],
    k: &[A],
    v: &[A],
    out: &[A],
    lse: &[f32],
    dq: &mut [A],
    dk: &mut [A],
    dv: &mut [A],
) {
    let AttentionShape { heads, kv_heads, head_dim: dim, scale } = shape;
    let (isa, wide, tokens, group) = (cpu.isa, padded(dim), lse.len() / heads, heads / kv_heads);
    if tokens == 0 {
        return;
    }
    let mut delta = Buffer::take(heads * tokens);
    for_each(cpu.pool, delta.chunks_exact_mut(tokens).enumerate(), |(h, delta)| {
        let (dout, out) = (Head::new(dout, heads, dim, h), Head::new(out, heads, dim, h));
        for (t, delta) in delta.iter_mut().enumerate() {
            *delta = dot(isa, dout.row(t), out.row(t));
        }
    });
    let saved = |h: usize| Saved {
        q: Head::new(q, heads, dim, h),
        dout: Head::new(dout, heads, dim, h),
        lse: &lse[h * tokens..][..tokens],
        delta: &delta[h * tokens..][..tokens],
    };

    let query_tiles = places(heads, sequences);
    let tasks = query_tiles.clone().count();
    let items = query_tiles.zip(cut(dq, heads * dim, dim, sequences));
    for_each_of(cpu.pool, tasks, items, |((queries, h), mut out)| {
        let mut buffer = Buffer::take(TILE * (5 * wide + 2 * TILE));
        let mut rest = Rest(&mut buffer);
        let (qt, dot, scores) = (rest.take(wide), rest.take(wide), rest.take(TILE));
        let (dweights, dq) = (rest.take(TILE), rest.take(wide));
        let (ks, vs) = (rest.take(wide), rest.take(wide));
        let saved = saved(h);
        let (lse, delta) = saved.statistics(queries);
        load_columns(isa, saved.q, queries, wide, ks, qt);
        load_columns(isa, saved.dout, queries, wide, ks, dot);
        dq.fill(0.0);
        for keys in queries.up_to() {
            load_rows(isa, Head::new(k, kv_heads, dim, h / group), keys, wide, ks);
            load_rows(isa, Head::new(v, kv_heads, dim, h / group), keys, wide, vs);
            products(isa, dim, keys.len, ks, qt, scores);
            products(isa, dim, keys.len, vs, dot, dweights);
            differentiate::<A>(isa, scores, dweights, queries, keys, scale, lse, delta);
            mix(isa, [queries.len, wide, keys.len], scores, ks, dq);
        }
        store(isa, dq, wide, &mut out);
    });

    let key_tiles = places(kv_heads, sequences);
    let tasks = key_tiles.clone().count();
    let outs = cut(dk, kv_heads * dim, dim, sequences).zip(cut(dv, kv_heads * dim, dim, sequences));
    for_each_of(cpu.pool, tasks, key_tiles.zip(outs), |((keys, kv), (mut dk_out, mut dv_out))| {
        let mut buffer = Buffer::take(TILE * (6 * wide + 2 * TILE));
        let mut rest = Rest(&mut buffer);
        let (kt, vt, scores) = (rest.take(wide), rest.take(wide), rest.take(TILE));
        let (dweights, dk, dv) = (rest.take(TILE), rest.take(wide), rest.take(wide));
        let (qs, dos) = (rest.take(wide), rest.take(wide));
        load_columns(isa, Head::new(k, kv_heads, dim, kv), keys, wide, qs, kt);
        load_columns(isa, Head::new(v, kv_heads, dim, kv), keys, wide, qs, vt);
        dk.fill(0.0);
        dv.fill(0.0);
        for h in kv * group..(kv + 1) * group {
            let saved = saved(h);
            for queries in keys.onwards() {
                let (lse, delta) = saved.statistics(queries);
                load_rows(isa, saved.q, queries, wide, qs);
                load_rows(isa, saved.dout, queries, wide, dos);
                products(isa, dim, queries.len, qs, kt, scores);
                products(isa, dim, queries.len, dos, vt, dweights);
                differentiate_by_query::<A>(isa, scores, dweights, queries, keys, scale, lse, delta);
                mix(isa, [keys.len, wide, queries.len], scores, dos, dv);
                mix(isa, [keys.len, wide, queries.len], dweights, qs, dk);
            }
        }
        store(isa, dk, wide, &mut dk_out);
        store(isa, dv, wide, &mut dv_out);
    });
}
