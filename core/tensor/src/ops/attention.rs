//! Causal grouped-query attention in tiles (Dao 2023, "FlashAttention-2"): scores live in a tile of
//! [`TILE`] × [`TILE`], never in a `T × T` matrix.
//!
//! Forward: one task a (sequence, head, tile of queries). Backward: one task a (sequence, head, tile of queries) for
//! `dq` and one a (sequence, key-value head, tile of keys) for `dk` and `dv`, so nothing is added by two tasks.
//! Softmax statistics and all sums are f32; key tiles ascend, and so do the query heads of a group.

use fp8flow_kernels::{Cpu, math, multiversion};

use super::tile;
use crate::AttentionShape;
use crate::element::{Element, lane_sum};
use crate::parts::Parts;
use crate::scratch::with_scratch;

/// Queries and keys of a tile; part of the numerics revision.
const TILE: usize = 64;

/// A tile of one sequence: `len` tokens from token `start` of the micro-batch, `first` of the sequence's own count.
#[derive(Clone, Copy)]
struct Span {
    sequence_start: usize,
    first: usize,
    len: usize,
}

/// The tiles of all sequences, in order.
fn spans(sequences: &[u32]) -> Vec<Span> {
    let mut spans = Vec::new();
    for ends in sequences.windows(2) {
        let (start, end) = (ends[0] as usize, ends[1] as usize);
        for first in (0..end - start).step_by(TILE) {
            spans.push(Span { sequence_start: start, first, len: TILE.min(end - start - first) });
        }
    }
    spans
}

impl Span {
    /// The micro-batch's index of the span's first token.
    fn token(self) -> usize {
        self.sequence_start + self.first
    }

    /// The spans of the same sequence from its start up to and including this one.
    fn up_to(self) -> impl Iterator<Item = Span> {
        (0..=self.first).step_by(TILE).map(move |first| Span {
            first,
            len: if first == self.first { self.len } else { TILE },
            ..self
        })
    }
}

/// Where a head's rows lie in a `[T, heads · head_dim]` activation.
#[derive(Clone, Copy)]
struct Head<'a, A> {
    data: &'a [A],
    width: usize,
    at: usize,
    dim: usize,
}

impl<A: Element> Head<'_, A> {
    /// The span's rows as f32, `[TILE, padded]`; what lies beyond is left zero.
    #[inline(always)]
    fn rows(self, span: Span, padded: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (row, out) in out.chunks_exact_mut(padded).enumerate().take(span.len) {
            let x = &self.data[(span.token() + row) * self.width + self.at..][..self.dim];
            for (out, x) in out.iter_mut().zip(x) {
                *out = x.widen();
            }
        }
    }

    /// The span's rows as columns, `[dim, TILE]`.
    #[inline(always)]
    fn columns(self, span: Span, out: &mut [f32]) {
        out.fill(0.0);
        for row in 0..span.len {
            let x = &self.data[(span.token() + row) * self.width + self.at..][..self.dim];
            for (i, x) in x.iter().enumerate() {
                out[i * TILE + row] = x.widen();
            }
        }
    }
}

/// Row length of a tile of head vectors.
fn padded(dim: usize) -> usize {
    dim.next_multiple_of(tile::NR)
}

fn head<A>(data: &[A], heads: usize, dim: usize, index: usize) -> Head<'_, A> {
    Head { data, width: heads * dim, at: index * dim, dim }
}

multiversion! {
    /// One tile of queries against all keys before them. `out: [TILE, padded]`, `lse: [TILE]`.
    fn forward_tile<A: Element>(
        q: Head<'_, A>, k: Head<'_, A>, v: Head<'_, A>, scale: f32, span: Span, buffers: &mut [f32], out: &mut [f32], lse: &mut [f32],
    ) {
        let (dim, wide) = (q.dim, padded(q.dim));
        let (qs, rest) = buffers.split_at_mut(TILE * dim);
        let (kt, rest) = rest.split_at_mut(dim * TILE);
        let (vs, rest) = rest.split_at_mut(TILE * wide);
        let (s, m) = rest.split_at_mut(TILE * TILE);
        q.rows(span, dim, qs);
        out.fill(0.0);
        m.fill(f32::NEG_INFINITY);
        lse.fill(0.0);
        for keys in span.up_to() {
            k.columns(keys, kt);
            v.rows(keys, wide, vs);
            s.fill(0.0);
            tile::accumulate(TILE, TILE, dim, qs, kt, s);
            for row in 0..span.len {
                // Keys this query may see; the rest of the row is no part of the softmax.
                let seen = (span.first + row + 1 - keys.first).min(keys.len);
                let scores = &mut s[row * TILE..][..TILE];
                let mut top = m[row];
                for x in &mut scores[..seen] {
                    *x *= scale;
                    top = if *x > top || x.is_nan() { *x } else { top };
                }
                let fade = math::exp(m[row] - top);
                for x in &mut scores[..seen] {
                    *x = math::exp(*x - top);
                }
                scores[seen..].fill(0.0);
                let sum = lane_sum(TILE, |i, acc| acc + scores[i]);
                lse[row] = lse[row].mul_add(fade, sum);
                m[row] = top;
                for x in &mut out[row * wide..][..wide] {
                    *x *= fade;
                }
            }
            s[span.len * TILE..].fill(0.0);
            tile::accumulate(TILE, wide, TILE, s, vs, out);
        }
        for row in 0..span.len {
            let inverse = 1.0 / lse[row];
            for x in &mut out[row * wide..][..wide] {
                *x *= inverse;
            }
            lse[row] = m[row] + math::ln(lse[row]);
        }
    }
}

/// What backward knows of one query head.
#[derive(Clone, Copy)]
struct Saved<'a, A> {
    q: Head<'a, A>,
    dout: Head<'a, A>,
    lse: &'a [f32],
    delta: &'a [f32],
}

multiversion! {
    /// `dq` of one tile of queries, `[TILE, padded]`.
    fn backward_queries<A: Element>(
        saved: Saved<'_, A>, k: Head<'_, A>, v: Head<'_, A>, scale: f32, span: Span, buffers: &mut [f32], dq: &mut [f32],
    ) {
        let (dim, wide) = (k.dim, padded(k.dim));
        let (qs, rest) = buffers.split_at_mut(TILE * dim);
        let (dos, rest) = rest.split_at_mut(TILE * dim);
        let (kt, rest) = rest.split_at_mut(dim * TILE);
        let (vt, rest) = rest.split_at_mut(dim * TILE);
        let (ks, rest) = rest.split_at_mut(TILE * wide);
        let (s, dp) = rest.split_at_mut(TILE * TILE);
        saved.q.rows(span, dim, qs);
        saved.dout.rows(span, dim, dos);
        dq.fill(0.0);
        for keys in span.up_to() {
            k.columns(keys, kt);
            v.columns(keys, vt);
            k.rows(keys, wide, ks);
            s.fill(0.0);
            tile::accumulate(TILE, TILE, dim, qs, kt, s);
            dp.fill(0.0);
            tile::accumulate(TILE, TILE, dim, dos, vt, dp);
            for row in 0..TILE {
                let seen = if row < span.len { (span.first + row + 1 - keys.first).min(keys.len) } else { 0 };
                let scores = &mut s[row * TILE..][..TILE];
                if seen > 0 {
                    let (lse, delta) = (saved.lse[span.token() + row], saved.delta[span.token() + row]);
                    for (x, dp) in scores[..seen].iter_mut().zip(&dp[row * TILE..]) {
                        *x = math::exp(*x * scale - lse) * (dp - delta) * scale;
                    }
                }
                scores[seen..].fill(0.0);
            }
            tile::accumulate(TILE, wide, TILE, s, ks, dq);
        }
    }
}

multiversion! {
    /// Adds what one tile of queries gives to `dk` and `dv` of one tile of keys, `[TILE, padded]` each.
    fn backward_keys<A: Element>(
        saved: Saved<'_, A>, ks: &[f32], vs: &[f32], scale: f32, queries: Span, keys: Span, buffers: &mut [f32], dk: &mut [f32], dv: &mut [f32],
    ) {
        let (dim, wide) = (saved.q.dim, padded(saved.q.dim));
        let (qt, rest) = buffers.split_at_mut(dim * TILE);
        let (dot, rest) = rest.split_at_mut(dim * TILE);
        let (qs, rest) = rest.split_at_mut(TILE * wide);
        let (dos, rest) = rest.split_at_mut(TILE * wide);
        let (s, dp) = rest.split_at_mut(TILE * TILE);
        saved.q.columns(queries, qt);
        saved.dout.columns(queries, dot);
        saved.q.rows(queries, wide, qs);
        saved.dout.rows(queries, wide, dos);
        s.fill(0.0);
        tile::accumulate(TILE, TILE, dim, ks, qt, s);
        dp.fill(0.0);
        tile::accumulate(TILE, TILE, dim, vs, dot, dp);
        let at = queries.token()..queries.token() + queries.len;
        let (lse, delta) = (&saved.lse[at.clone()], &saved.delta[at]);
        for row in 0..TILE {
            // The first query of the tile that may see this key.
            let from = if row < keys.len { (keys.first + row).saturating_sub(queries.first) } else { TILE };
            let (p, dp) = (&mut s[row * TILE..][..TILE], &mut dp[row * TILE..][..TILE]);
            for i in 0..TILE {
                if i >= from && i < queries.len {
                    p[i] = math::exp(p[i] * scale - lse[i]);
                    dp[i] = p[i] * (dp[i] - delta[i]) * scale;
                } else {
                    p[i] = 0.0;
                    dp[i] = 0.0;
                }
            }
        }
        tile::accumulate(TILE, wide, TILE, s, dos, dv);
        tile::accumulate(TILE, wide, TILE, dp, qs, dk);
    }
}

multiversion! {
    fn dot<A: Element>(x: &[A], y: &[A]) -> f32 {
        lane_sum(x.len(), |i, acc| x[i].widen().mul_add(y[i].widen(), acc))
    }
}

/// Copies a tile's rows into their head of an activation cut into heads.
fn store<A: Element>(tile: &[f32], wide: usize, span: Span, rows: &Parts<'_, A>, heads: usize, head: usize) {
    for (row, tile) in tile.chunks_exact(wide).enumerate().take(span.len) {
        for (out, x) in rows.claim((span.token() + row) * heads + head).iter_mut().zip(tile) {
            *out = A::narrow(*x);
        }
    }
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
    let (spans, wide, tokens) = (spans(sequences), padded(dim), lse.len() / heads);
    let (outs, lses) = (Parts::new(out, dim), Parts::new(lse, 1));
    cpu.pool.run(spans.len() * heads, &|task| {
        let (span, h) = (spans[task / heads], task % heads);
        let kv = h / (heads / kv_heads);
        with_scratch(2 * TILE * (dim + wide) + TILE * TILE + 2 * TILE, |buffers| {
            let (tile_out, rest) = buffers.split_at_mut(TILE * wide);
            let (tile_lse, rest) = rest.split_at_mut(TILE);
            let (k, v) = (head(k, kv_heads, dim, kv), head(v, kv_heads, dim, kv));
            forward_tile(cpu.isa, head(q, heads, dim, h), k, v, scale, span, rest, tile_out, tile_lse);
            store(tile_out, wide, span, &outs, heads, h);
            for (row, x) in tile_lse.iter().enumerate().take(span.len) {
                lses.claim(h * tokens + span.token() + row)[0] = *x;
            }
        });
    });
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
    let (spans, wide, tokens, group) = (spans(sequences), padded(dim), lse.len() / heads, heads / kv_heads);
    with_scratch(heads * tokens, |delta| {
        let deltas = Parts::new(delta, tokens);
        cpu.pool.run(if tokens == 0 { 0 } else { heads }, &|h| {
            for (t, delta) in deltas.claim(h).iter_mut().enumerate() {
                let at = (t * heads + h) * dim..(t * heads + h + 1) * dim;
                *delta = dot(cpu.isa, &dout[at.clone()], &out[at]);
            }
        });
        let delta = &*delta;
        let saved = |h: usize| Saved {
            q: head(q, heads, dim, h),
            dout: head(dout, heads, dim, h),
            lse: &lse[h * tokens..(h + 1) * tokens],
            delta: &delta[h * tokens..(h + 1) * tokens],
        };

        let dqs = Parts::new(dq, dim);
        cpu.pool.run(spans.len() * heads, &|task| {
            let (span, h) = (spans[task / heads], task % heads);
            let (k, v) = (head(k, kv_heads, dim, h / group), head(v, kv_heads, dim, h / group));
            with_scratch(4 * TILE * dim + 2 * TILE * wide + 2 * TILE * TILE, |buffers| {
                let (tile_dq, rest) = buffers.split_at_mut(TILE * wide);
                backward_queries(cpu.isa, saved(h), k, v, scale, span, rest, tile_dq);
                store(tile_dq, wide, span, &dqs, heads, h);
            });
        });

        let (dks, dvs) = (Parts::new(dk, dim), Parts::new(dv, dim));
        cpu.pool.run(spans.len() * kv_heads, &|task| {
            let (keys, kv) = (spans[task / kv_heads], task % kv_heads);
            with_scratch(4 * TILE * dim + 4 * TILE * wide + 2 * TILE * TILE, |buffers| {
                let (tile_dk, rest) = buffers.split_at_mut(TILE * wide);
                let (tile_dv, rest) = rest.split_at_mut(TILE * wide);
                let (ks, rest) = rest.split_at_mut(TILE * dim);
                let (vs, rest) = rest.split_at_mut(TILE * dim);
                head(k, kv_heads, dim, kv).rows(keys, dim, ks);
                head(v, kv_heads, dim, kv).rows(keys, dim, vs);
                for h in kv * group..(kv + 1) * group {
                    let later = |s: &&Span| s.sequence_start == keys.sequence_start && s.first >= keys.first;
                    for queries in spans.iter().filter(later) {
                        backward_keys(
                            cpu.isa,
                            saved(h),
                            ks,
                            vs,
                            scale,
                            *queries,
                            keys,
                            rest,
                            tile_dk,
                            tile_dv,
                        );
                    }
                }
                store(tile_dk, wide, keys, &dks, kv_heads, kv);
                store(tile_dv, wide, keys, &dvs, kv_heads, kv);
            });
        });
    });
}
