// Gradients of attention's queries, dq = ds k, as in attention_backward.cu, by the products of Hopper's warp groups.
// Specification: ops/attention, `backward`, with the bounds that attention_backward.cu has.
// Reads k and v once for every 128 queries of a head, from L2 mostly; writes dq once. Three products for the pairs of a
// query and a key, of which the scores have been multiplied out in the forward pass, too.
// The queries come from shared memory for every tile. To keep them in registers saved no time on an H200, and ptxas
// 13.0 gave such registers to ds where both took as many.
// only sm_90a
// budget: registers 168, spills 0
// expects sm_90a: HGMMA
// expects sm_90a: LDGSTS
#include "attention_wgmma.cuh"

// A block takes 128 queries of a head at a time, and walks the keys that they see, the last ones first.
template <int D, int N, u32 STAGES>
__device__ inline void dq_of(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                             const float* delta, bf16* dq, const Work* work, u32 heads, u32 kv_heads, u32 tokens,
                             float scale, u32 tiles) {
    const u32 BYTES = Tile<D, N>::BYTES;
    u8 *queries = dynamic_shared(), *douts = queries + Tile<D, OWN>::BYTES, *keys = douts + Tile<D, OWN>::BYTES,
       *values = keys + STAGES * BYTES;
    // For the queries and for their gradients; then for the keys and for the values.
    u64* full_own = reinterpret_cast<u64*>(values + STAGES * BYTES);
    u64 *empty_own = full_own + 2, *full_keys = empty_own + 2, *full_values = full_keys + STAGES,
        *empty_keys = full_values + STAGES, *empty_values = empty_keys + STAGES;
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < 2; i++) {
            barrier_make(full_own + i, FETCHERS);
            barrier_make(empty_own + i, READERS);
        }
        for (u32 i = 0; i < 2 * STAGES; i++) {
            barrier_make(full_keys + i, FETCHERS);
            barrier_make(empty_keys + i, READERS);
        }
    }
    __syncthreads();
    u32 wide = heads * D, group = group_of_warps();
    if (group == GROUPS) {
        registers_fewer<FEW>();
        Buffers<STAGES> first{queries, keys, full_own, empty_own, full_keys, empty_keys};
        Buffers<STAGES> second{douts, values, full_own + 1, empty_own + 1, full_values, empty_values};
        if (threadIdx.x % GROUP < FETCHERS) fetch_keys<D, N>(first, q, k, work, heads, kv_heads, tiles);
        else fetch_keys<D, N>(second, dout, v, work, heads, kv_heads, tiles);
    } else {
        registers_more<MANY>();
        const float c = scale * LOG2_E;
        Ring<STAGES> ring;
        u32 turn = 0;
        for (u32 at = blockIdx.x; at < heads * tiles; at += gridDim.x) {
            Work own = work[at / heads];
            u32 head = at % heads, all = least(own.first + OWN, own.len), first = own.first + group * ROWS;
            u32 tile = (all + N - 1) / N;
            float grown[D / 2], base[2], deltas[2];
            u32 weights[N / 16][4] = {};
#pragma unroll
            for (int i = 0; i < D / 2; i++) grown[i] = 0.0f;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 row = first + row_of(half * 2), place = head * tokens + own.start + row;
                base[half] = row < own.len ? -lse[place] * LOG2_E : -infinity();
                deltas[half] = row < own.len ? delta[place] : 0.0f;
            }
            barrier_wait(full_own, turn);
            barrier_wait(full_own + 1, turn);
            turn ^= 1;
            u64* reading = nullptr;
            for (; tile > 0; ring.next()) {
                tile--;
                u64 *empty = empty_keys + ring.slot, *full = full_keys + ring.slot;
                const u8 *own_keys = keys + ring.slot * BYTES, *own_values = values + ring.slot * BYTES;
                barrier_wait(full, ring.turn);
                if (tile * N >= first + ROWS) {
                    // No query of this group sees these.
                    barrier_wait(full + STAGES, ring.turn);
                    done_with(empty);
                    done_with(empty + STAGES);
                    continue;
                }
                float scores[N / 2], dweights[N / 2];
                hold(scores);
                products_begin();
                products<D, OWN, N>(scores, queries, group * ROWS, own_keys);
                products_commit();
                // What the last tile's products read is free.
                products_wait<1>();
                hold(grown);
                hold(weights);
                if (reading) done_with(reading);
                reading = empty;
                barrier_wait(full + STAGES, ring.turn);
                hold(dweights);
                products_begin();
                products<D, OWN, N>(dweights, douts, group * ROWS, own_values);
                products_commit();
                products_wait<1>();
                hold(scores);
#pragma unroll
                for (int i = 0; i < N / 2; i++) scores[i] = exp2_fast(fmaf(scores[i], c, base[i / 2 % 2]));
                if (tile * N + N > first) {
#pragma unroll
                    for (int i = 0; i < N / 2; i++)
                        if (tile * N + column_of(i) > first + row_of(i)) scores[i] = 0.0f;
                }
                products_wait<0>();
                hold(dweights);
                done_with(empty + STAGES);
#pragma unroll
                for (int i = 0; i < N / 2; i++) scores[i] *= dweights[i] - deltas[i / 2 % 2];
                rounded<N>(weights, scores);
                hold(weights);
                hold(grown);
                products_begin();
                mix<D, N>(grown, weights, own_keys);
                products_commit();
            }
            done_with(empty_own);
            done_with(empty_own + 1);
            products_wait<0>();
            hold(grown);
            hold(weights);
            if (reading) done_with(reading);
#pragma unroll
            for (int i = 0; i < D / 2; i++) grown[i] *= scale;
            u32 left = first < own.len ? own.len - first : 0;
            store<D>(grown, dq + u64(own.start + first) * wide + head * D, wide, left);
        }
    }
}

// Entry points by the elements of a head.
#define PARAMETERS                                                                                                     \
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse, const float *delta, bf16 *dq,     \
        const Work *work, u32 heads, u32 kv_heads, u32 tokens, float scale, u32 tiles
#define ARGUMENTS q, k, v, dout, lse, delta, dq, work, heads, kv_heads, tokens, scale, tiles

extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_wgmma_64_bf16(PARAMETERS) {
    dq_of<64, 128, 2>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_wgmma_128_bf16(PARAMETERS) {
    dq_of<128, 64, 3>(ARGUMENTS);
}
