// Gradients of attention's keys and values, dk = ds^T q and dv = p^T dout, as in attention_backward.cu, by the products
// of Hopper's warp groups.
// Specification: ops/attention, `backward`, with the bounds that attention_backward.cu has.
// Reads q and dout once for every 128 keys of a key-value head, from L2 mostly; writes dk and dv once. Four products
// for the pairs of a query and a key.
// only sm_90a
// budget: registers 168, spills 0
// expects sm_90a: HGMMA
// expects sm_90a: LDGSTS
#include "attention_wgmma.cuh"

// A block takes 128 keys of a key-value head at a time, and walks the queries that see them, of one head of the group
// after the other. Scores are transposed here: a row a key.
template <int D, int N, u32 STAGES>
__device__ inline void dkv_of(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                              const float* delta, bf16* dk, bf16* dv, const Work* work, u32 heads, u32 kv_heads,
                              u32 tokens, float scale, u32 tiles) {
    const u32 BYTES = Tile<D, N>::BYTES;
    u8 *keys = dynamic_shared(), *values = keys + Tile<D, OWN>::BYTES, *queries = values + Tile<D, OWN>::BYTES,
       *douts = queries + STAGES * BYTES;
    // Of each query -lse, to base 2, and delta.
    float *bases = reinterpret_cast<float*>(douts + STAGES * BYTES), *deltas = bases + STAGES * N;
    // For the keys and for the values; then for the queries and for their gradients.
    u64* full_own = reinterpret_cast<u64*>(deltas + STAGES * N);
    u64 *empty_own = full_own + 2, *full_queries = empty_own + 2, *full_douts = full_queries + STAGES,
        *empty_queries = full_douts + STAGES, *empty_douts = empty_queries + STAGES;
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < 2; i++) {
            barrier_make(full_own + i, FETCHERS);
            barrier_make(empty_own + i, READERS);
        }
        for (u32 i = 0; i < 2 * STAGES; i++) {
            barrier_make(full_queries + i, FETCHERS);
            barrier_make(empty_queries + i, READERS);
        }
    }
    __syncthreads();
    u32 narrow = kv_heads * D, shared_by = heads / kv_heads, group = group_of_warps();
    if (group == GROUPS) {
        registers_fewer<FEW>();
        Buffers<STAGES> first{keys, queries, full_own, empty_own, full_queries, empty_queries};
        Buffers<STAGES> second{values, douts, full_own + 1, empty_own + 1, full_douts, empty_douts};
        if (threadIdx.x % GROUP < FETCHERS) {
            fetch_queries<D, N>(first, bases, k, q, lse, -LOG2_E, -infinity(), work, heads, kv_heads, tokens, tiles);
        } else {
            fetch_queries<D, N>(second, deltas, v, dout, delta, 1.0f, 0.0f, work, heads, kv_heads, tokens, tiles);
        }
    } else {
        registers_more<MANY>();
        const float c = scale * LOG2_E;
        Ring<STAGES> ring;
        u32 turn = 0;
        for (u32 at = blockIdx.x; at < kv_heads * tiles; at += gridDim.x) {
            Work own = work[at / kv_heads];
            // Counted from the tile's first key: tokens of the sequence, and the first key of this group.
            u32 kv = at % kv_heads, len = own.len - own.first, first = group * ROWS;
            float dks[D / 2], dvs[D / 2];
            u32 weights[N / 16][4] = {}, dscores[N / 16][4] = {};
#pragma unroll
            for (int i = 0; i < D / 2; i++) dks[i] = dvs[i] = 0.0f;
            barrier_wait(full_own, turn);
            barrier_wait(full_own + 1, turn);
            turn ^= 1;
            u64* reading = nullptr;
            u32 left = shared_by, query = 0;
            for (; left > 0; ring.next()) {
                u32 own_query = query;
                query += N;
                if (query >= len) query = 0, left--;
                u64 *empty = empty_queries + ring.slot, *full = full_queries + ring.slot;
                const u8 *own_queries = queries + ring.slot * BYTES, *own_douts = douts + ring.slot * BYTES;
                const float *own_bases = bases + ring.slot * N, *own_deltas = deltas + ring.slot * N;
                barrier_wait(full, ring.turn);
                if (own_query + N <= first) {
                    // None of these sees a key of this group, which must not hold up the other one.
                    products_wait<0>();
                    if (reading) {
                        done_with(reading);
                        done_with(reading + STAGES);
                    }
                    reading = nullptr;
                    barrier_wait(full + STAGES, ring.turn);
                    done_with(empty);
                    done_with(empty + STAGES);
                    continue;
                }
                float scores[N / 2], dweights[N / 2];
                hold(scores);
                products_begin();
                products<D, OWN, N>(scores, keys, first, own_queries);
                products_commit();
                // What the last tile's products read is free.
                products_wait<1>();
                hold(dks);
                hold(dvs);
                hold(weights);
                hold(dscores);
                if (reading) {
                    done_with(reading);
                    done_with(reading + STAGES);
                }
                reading = empty;
                barrier_wait(full + STAGES, ring.turn);
                hold(dweights);
                products_begin();
                products<D, OWN, N>(dweights, values, first, own_douts);
                products_commit();
                products_wait<1>();
                hold(scores);
#pragma unroll
                for (int i = 0; i < N / 2; i += 4) {
                    float2 base = *reinterpret_cast<const float2*>(own_bases + column_of(i));
                    scores[i] = exp2_fast(fmaf(scores[i], c, base.x));
                    scores[i + 1] = exp2_fast(fmaf(scores[i + 1], c, base.y));
                    scores[i + 2] = exp2_fast(fmaf(scores[i + 2], c, base.x));
                    scores[i + 3] = exp2_fast(fmaf(scores[i + 3], c, base.y));
                }
                if (own_query < first + ROWS) {
#pragma unroll
                    for (int i = 0; i < N / 2; i++)
                        if (own_query + column_of(i) < first + row_of(i)) scores[i] = 0.0f;
                }
                rounded<N>(weights, scores);
                products_wait<0>();
                hold(dweights);
#pragma unroll
                for (int i = 0; i < N / 2; i += 4) {
                    float2 lost = *reinterpret_cast<const float2*>(own_deltas + column_of(i));
                    scores[i] *= dweights[i] - lost.x;
                    scores[i + 1] *= dweights[i + 1] - lost.y;
                    scores[i + 2] *= dweights[i + 2] - lost.x;
                    scores[i + 3] *= dweights[i + 3] - lost.y;
                }
                rounded<N>(dscores, scores);
                hold(dscores);
                hold(dks);
                hold(weights);
                hold(dvs);
                products_begin();
                mix<D, N>(dvs, weights, own_douts);
                mix<D, N>(dks, dscores, own_queries);
                products_commit();
            }
            products_wait<0>();
            hold(dks);
            hold(dvs);
            hold(weights);
            hold(dscores);
            if (reading) {
                done_with(reading);
                done_with(reading + STAGES);
            }
            done_with(empty_own);
            done_with(empty_own + 1);
#pragma unroll
            for (int i = 0; i < D / 2; i++) dks[i] *= scale;
            u32 rows = first < len ? len - first : 0;
            u64 to = u64(own.start + own.first + first) * narrow + kv * D;
            store<D>(dks, dk + to, narrow, rows);
            store<D>(dvs, dv + to, narrow, rows);
        }
    }
}

// Entry points by the elements of a head.
#define PARAMETERS                                                                                                     \
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse, const float *delta, bf16 *dk,     \
        bf16 *dv, const Work *work, u32 heads, u32 kv_heads, u32 tokens, float scale, u32 tiles
#define ARGUMENTS q, k, v, dout, lse, delta, dk, dv, work, heads, kv_heads, tokens, scale, tiles

extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_wgmma_64_bf16(PARAMETERS) {
    dkv_of<64, 128, 2>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_wgmma_128_bf16(PARAMETERS) {
    dkv_of<128, 64, 3>(ARGUMENTS);
}
