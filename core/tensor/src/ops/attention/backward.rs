//! Gradients of attention, on one of two roads to the same bits: every sum has the same terms in the same order.
//!
//! * In one pass, a task a (sequence, key-value head): a tile of scores serves `dq`, `dk` and `dv`, five products.
//! * In two, a task a (sequence, head, tile of queries) for `dq` and one a (sequence, key-value head, tile of keys) for `dk`
//!   and `dv`, seven products: for threads that the tasks of one pass would leave idle.

use fp8flow_kernels::parallel::{for_each, for_each_of};
use fp8flow_kernels::{Buffer, Cpu, Element, Isa};

use super::layout::{
    Head, Rest, Span, TILE, cut, load_columns, load_rows, padded, places, sequence_places, store,
};
use super::scores::{differentiate, dot, products};
use crate::AttentionShape;
use crate::ops::tile::{Part, accumulate, accumulate_transposed};

/// What backward reads, for all heads.
struct Given<'a, A> {
    cpu: Cpu<'a>,
    shape: AttentionShape,
    sequences: &'a [u32],
    q: &'a [A],
    k: &'a [A],
    v: &'a [A],
    dout: &'a [A],
    lse: &'a [f32],
    /// `⟨dout, out⟩` of each head and token, which is `Σ_key weight · dweight`.
    delta: &'a [f32],
}

impl<A> Given<'_, A> {
    /// Query heads that share a key-value head.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
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
    let AttentionShape { heads, head_dim: dim, .. } = shape;
    let tokens = lse.len() / heads;
    if tokens == 0 {
        return;
    }
    let mut delta = Buffer::take(heads * tokens);
    for_each(cpu.pool, delta.chunks_exact_mut(tokens).enumerate(), |(h, delta)| {
        let (dout, out) = (Head::new(dout, heads, dim, h), Head::new(out, heads, dim, h));
        for (t, delta) in delta.iter_mut().enumerate() {
            *delta = dot(cpu.isa, dout.row(t), out.row(t));
        }
    });
    let given = Given { cpu, shape, sequences, q, k, v, dout, lse, delta: &delta };
    if in_one_pass(shape, sequences, cpu.pool.threads()) {
        given.one_pass(dq, dk, dv);
    } else {
        given.of_queries(dq);
        given.of_keys(dk, dv);
    }
}

/// Whether no task of one pass is more than half a thread's share of the work, which goes by the square of the length.
fn in_one_pass(shape: AttentionShape, sequences: &[u32], threads: usize) -> bool {
    let work = || sequences.windows(2).map(|ends| u128::from(ends[1] - ends[0]).pow(2));
    let (all, largest) = (work().sum::<u128>(), work().max().unwrap_or(0));
    threads == 1 || 2 * threads as u128 * largest <= shape.kv_heads as u128 * all
}

/// Floats of the sums over sequences that [`Given::one_pass`] keeps in all its threads at once, at most: by
/// [`in_one_pass`] as many threads times the longest sequence are at most half of `kv_heads` times all tokens.
pub(super) fn kept_floats(shape: AttentionShape, tokens: usize, threads: usize) -> usize {
    let wide = padded(shape.head_dim);
    2 * wide * threads * TILE + wide * tokens * shape.kv_heads.max(2).min(2 * threads)
}

impl<A: Element> Given<'_, A> {
    fn one_pass(&self, dq: &mut [A], dk: &mut [A], dv: &mut [A]) {
        let AttentionShape { heads, kv_heads, head_dim: dim, .. } = self.shape;
        let (Cpu { isa, pool, .. }, sequences) = (self.cpu, self.sequences);
        let (wide, tokens, group) = (padded(dim), self.lse.len() / heads, self.group());
        let places = sequence_places(kv_heads, sequences);
        let tasks = places.clone().count();
        let [dk, dv] = [dk, dv].map(|out| cut(out, kv_heads * dim, [tokens, dim], sequences));
        let outs = cut(dq, heads * dim, [tokens, group * dim], sequences).zip(dk.zip(dv));
        for_each_of(
            pool,
            tasks,
            places.zip(outs),
            |((start, kv), (mut dq_out, (mut dk_out, mut dv_out)))| {
                let tiles = start.sequence_len.div_ceil(TILE);
                let mut buffer = Buffer::take(TILE * (TILES * wide + 2 * TILE + 2 * tiles * wide));
                let mut rest = Rest(&mut buffer);
                let mut tile = Tile::new(&mut rest, wide);
                let dq = rest.take(wide);
                let [dk, dv] = [(); 2].map(|()| rest.take(tiles * wide));
                dk.fill(0.0);
                dv.fill(0.0);
                for h in 0..group {
                    for queries in start.onwards() {
                        tile.load_queries(self, kv * group + h, queries);
                        dq.fill(0.0);
                        for keys in queries.up_to() {
                            tile.load_keys(self, kv, keys);
                            tile.differentiate(self, kv * group + h, [queries, keys]);
                            let own = keys.first * wide..(keys.first + TILE) * wide;
                            tile.add_to_keys(isa, [queries, keys], &mut dk[own.clone()], &mut dv[own]);
                            tile.add_to_queries(isa, [queries, keys], dq);
                        }
                        let rows = queries.first..queries.first + queries.len;
                        store(isa, dq, wide, rows, h * dim..(h + 1) * dim, &mut dq_out);
                    }
                }
                store(isa, dk, wide, dk_out.rows(), 0..dim, &mut dk_out);
                store(isa, dv, wide, dv_out.rows(), 0..dim, &mut dv_out);
            },
        );
    }

    fn of_queries(&self, dq: &mut [A]) {
        let AttentionShape { heads, head_dim: dim, .. } = self.shape;
        let (Cpu { isa, pool, .. }, wide) = (self.cpu, padded(dim));
        let places = places(heads, self.sequences);
        let tasks = places.clone().count();
        let items = places.zip(cut(dq, heads * dim, [TILE, dim], self.sequences));
        for_each_of(pool, tasks, items, |((queries, h), mut out)| {
            let mut buffer = Buffer::take(TILE * (TILES * wide + 2 * TILE));
            let mut rest = Rest(&mut buffer);
            let (mut tile, dq) = (Tile::new(&mut rest, wide), rest.take(wide));
            tile.load_queries(self, h, queries);
            dq.fill(0.0);
            for keys in queries.up_to() {
                tile.load_keys(self, h / self.group(), keys);
                tile.differentiate(self, h, [queries, keys]);
                tile.add_to_queries(isa, [queries, keys], dq);
            }
            store(isa, dq, wide, out.rows(), 0..dim, &mut out);
        });
    }

    fn of_keys(&self, dk: &mut [A], dv: &mut [A]) {
        let AttentionShape { kv_heads, head_dim: dim, .. } = self.shape;
        let (Cpu { isa, pool, .. }, wide, group) = (self.cpu, padded(dim), self.group());
        let places = places(kv_heads, self.sequences);
        let tasks = places.clone().count();
        let [dk, dv] = [dk, dv].map(|out| cut(out, kv_heads * dim, [TILE, dim], self.sequences));
        for_each_of(pool, tasks, places.zip(dk.zip(dv)), |((keys, kv), (mut dk_out, mut dv_out))| {
            let mut buffer = Buffer::take(TILE * ((TILES + 1) * wide + 2 * TILE));
            let mut rest = Rest(&mut buffer);
            let mut tile = Tile::new(&mut rest, wide);
            let [dk, dv] = [(); 2].map(|()| rest.take(wide));
            dk.fill(0.0);
            dv.fill(0.0);
            tile.load_keys(self, kv, keys);
            for h in kv * group..(kv + 1) * group {
                for queries in keys.onwards() {
                    tile.load_queries(self, h, queries);
                    tile.differentiate(self, h, [queries, keys]);
                    tile.add_to_keys(isa, [queries, keys], dk, dv);
                }
            }
            store(isa, dk, wide, dk_out.rows(), 0..dim, &mut dk_out);
            store(isa, dv, wide, dv_out.rows(), 0..dim, &mut dv_out);
        });
    }
}

/// Tiles of head vectors that a task holds: those of [`Tile`], and the gradients of its queries or its keys.
pub(super) const TILES: usize = 7;

/// A tile of scores, with a row for each key and a column for each query, and what it is made of.
struct Tile<'a> {
    wide: usize,
    q: &'a mut [f32],
    dout: &'a mut [f32],
    /// Both once more, as columns.
    q_columns: &'a mut [f32],
    dout_columns: &'a mut [f32],
    k: &'a mut [f32],
    v: &'a mut [f32],
    /// Rounded, as those of gradients are, as tensor cores take them.
    weights: &'a mut [f32],
    dscores: &'a mut [f32],
}

impl<'a> Tile<'a> {
    fn new(rest: &mut Rest<'a>, wide: usize) -> Self {
        let [q, dout, q_columns, dout_columns, k, v] = [(); 6].map(|()| rest.take(wide));
        let [weights, dscores] = [(); 2].map(|()| rest.take(TILE));
        Self { wide, q, dout, q_columns, dout_columns, k, v, weights, dscores }
    }

    fn load_queries<A: Element>(&mut self, given: &Given<'_, A>, h: usize, queries: Span) {
        let AttentionShape { heads, head_dim: dim, .. } = given.shape;
        let head = |data| Head::new(data, heads, dim, h);
        load_columns(given.cpu.isa, head(given.q), queries, self.wide, self.q, self.q_columns);
        load_columns(given.cpu.isa, head(given.dout), queries, self.wide, self.dout, self.dout_columns);
    }

    fn load_keys<A: Element>(&mut self, given: &Given<'_, A>, kv: usize, keys: Span) {
        let AttentionShape { kv_heads, head_dim: dim, .. } = given.shape;
        load_rows(given.cpu.isa, Head::new(given.k, kv_heads, dim, kv), keys, self.wide, self.k);
        load_rows(given.cpu.isa, Head::new(given.v, kv_heads, dim, kv), keys, self.wide, self.v);
    }

    /// Makes weights and gradients of scores.
    fn differentiate<A: Element>(&mut self, given: &Given<'_, A>, h: usize, [queries, keys]: [Span; 2]) {
        let AttentionShape { heads, head_dim: dim, scale, .. } = given.shape;
        let (isa, seen) = (given.cpu.isa, queries.seen(keys));
        let first = h * (given.lse.len() / heads) + queries.token();
        let [lse, delta] = [given.lse, given.delta].map(|statistics| &statistics[first..][..queries.len]);
        products(isa, dim, keys.len, seen, self.k, self.q_columns, self.weights);
        products(isa, dim, keys.len, seen, self.v, self.dout_columns, self.dscores);
        differentiate::<A>(isa, self.weights, self.dscores, seen, keys, scale, lse, delta);
    }

    fn add_to_queries(&self, isa: Isa, [queries, keys]: [Span; 2], dq: &mut [f32]) {
        let size = [queries.len, self.wide, keys.len];
        accumulate_transposed(isa, size, queries.seen(keys), self.dscores, TILE, self.k, dq);
    }

    fn add_to_keys(&self, isa: Isa, [queries, keys]: [Span; 2], dk: &mut [f32], dv: &mut [f32]) {
        let (size, parts) = ([keys.len, self.wide, queries.len], [Part::All, queries.seen(keys)]);
        accumulate(isa, size, parts, self.weights, TILE, self.dout, dv);
        accumulate(isa, size, parts, self.dscores, TILE, self.q, dk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fp8flow_kernels::Serial;

    #[test]
    fn both_roads_have_the_same_bits() {
        let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 20, scale: 0.2 };
        let (sequences, tokens) = ([0, 200, 201, 201, 330], 330);
        let some = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
        let [q, dout, out] = [0.37, 0.91, 0.53].map(|f| some(tokens * 6 * 20, f));
        let [k, v] = [0.71, 0.23].map(|f| some(tokens * 2 * 20, f));
        let [lse, delta] = [0.11, 0.19].map(|f| some(tokens * 6, f));
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, &Serial);
            let (q, k, v, dout) = (&q, &k, &v, &dout);
            let given = Given { cpu, shape, sequences: &sequences, q, k, v, dout, lse: &lse, delta: &delta };
            let results = || [vec![9.0; out.len()], vec![9.0; k.len()], vec![9.0; v.len()]];
            let ([mut dq, mut dk, mut dv], [mut dq2, mut dk2, mut dv2]) = (results(), results());
            given.one_pass(&mut dq, &mut dk, &mut dv);
            given.of_queries(&mut dq2);
            given.of_keys(&mut dk2, &mut dv2);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            for (what, one, two) in [("dq", &dq, &dq2), ("dk", &dk, &dk2), ("dv", &dv, &dv2)] {
                assert!(one.iter().all(|x| *x != 9.0), "{isa:?}: some of {what} was not written");
                assert_eq!(bits(one), bits(two), "{isa:?} {what}");
            }
        }
    }

    #[test]
    fn one_pass_keeps_all_threads_busy() {
        let shape = AttentionShape { heads: 8, kv_heads: 4, head_dim: 64, scale: 0.125 };
        assert!(in_one_pass(shape, &[0, 256, 512, 768, 1024], 8));
        assert!(!in_one_pass(shape, &[0, 256, 512, 768, 1024], 9));
        assert!(in_one_pass(shape, &[0, 2048], 2));
        assert!(!in_one_pass(shape, &[0, 2048], 3));
        // Few tasks of much work, and many of little.
        assert!(!in_one_pass(shape, &[0, 2048, 2058, 2068, 2078, 2088], 3));
        assert!(in_one_pass(AttentionShape { kv_heads: 1, ..shape }, &[0, 2048], 1));
    }
}
