// Causal grouped-query attention as in attention_forward.cu, by the products of Hopper's warp groups (Shah 2024,
// "FlashAttention-3"): two of them take turns, so that one multiplies while the other makes weights of its scores.
// Specification: ops/attention, `forward`, with the bounds that attention_forward.cu has.
// Reads k and v once for every 128 queries of a head, from L2 mostly; writes out and lse once.
// only sm_90a
// budget: registers 168, spills 0
// expects sm_90a: HGMMA
// expects sm_90a: LDGSTS
#include "attention_wgmma.cuh"
#include "math.cuh"

// Turns scores into weights exp2(c * score - top), where `top` is the new maximum of a row, up to the next integer, as
// in attention_forward.cu; `sum` gains this thread's share of them, and `fade` is what older weights are to be multiplied
// with.
template <int N>
__device__ inline void weigh(float (&scores)[N / 2], float c, float (&top)[2], float (&sum)[2], float (&fade)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        // A NaN passes by: its weight will be one, and spoil all that a query gets.
        float most = -infinity();
#pragma unroll
        for (int n = half * 2; n < N / 2; n += 4) most = fmaxf(most, fmaxf(scores[n], scores[n + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        most = fmaxf(top[half], ceilf(most * c));
        fade[half] = exp2_fast(top[half] - most);
        top[half] = most;
        float base = -most, total = 0.0f;
#pragma unroll
        for (int n = half * 2; n < N / 2; n += 4)
#pragma unroll
            for (int i = n; i < n + 2; i++) {
                scores[i] = exp2_fast(fmaf(scores[i], c, base));
                total += scores[i];
            }
        sum[half] = fmaf(sum[half], fade[half], total);
    }
}

// A block takes 128 queries of a head at a time, and walks the keys that they see, the last ones first. The scores of
// the next keys are on their way while weights are made of the ones that have come.
template <int D, int N, u32 STAGES>
__device__ inline void forward(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, const Work* work,
                               u32 heads, u32 kv_heads, u32 tokens, float scale, u32 tiles) {
    const u32 BYTES = Tile<D, N>::BYTES;
    u8 *queries = dynamic_shared(), *keys = queries + Tile<D, OWN>::BYTES, *values = keys + STAGES * BYTES;
    u64* full_queries = reinterpret_cast<u64*>(values + STAGES * BYTES);
    u64 *empty_queries = full_queries + 1, *full_keys = full_queries + 2, *empty_keys = full_keys + STAGES,
        *full_values = empty_keys + STAGES, *empty_values = full_values + STAGES;
    if (threadIdx.x == 0) {
        barrier_make(full_queries, FETCHERS);
        barrier_make(empty_queries, READERS);
        for (u32 i = 0; i < STAGES; i++) {
            barrier_make(full_keys + i, FETCHERS);
            barrier_make(full_values + i, FETCHERS);
            barrier_make(empty_keys + i, READERS);
            barrier_make(empty_values + i, READERS);
        }
    }
    __syncthreads();
    u32 wide = heads * D, group = group_of_warps();
    if (group == GROUPS) {
        registers_fewer<FEW>();
        Buffers<STAGES> of_keys{queries, keys, full_queries, empty_queries, full_keys, empty_keys};
        Buffers<STAGES> of_values{nullptr, values, nullptr, nullptr, full_values, empty_values};
        if (threadIdx.x % GROUP < FETCHERS) fetch_keys<D, N>(of_keys, q, k, work, heads, kv_heads, tiles);
        else fetch_keys<D, N>(of_values, nullptr, v, work, heads, kv_heads, tiles);
    } else {
        registers_more<MANY>();
        const float c = scale * LOG2_E;
        Ring<STAGES> of_keys, of_values;
        u32 turn = 0;
        if (group == 1) turn_pass(1, GROUPS * GROUP);
        for (u32 at = blockIdx.x; at < heads * tiles; at += gridDim.x) {
            Work own = work[at / heads];
            u32 head = at % heads, all = least(own.first + OWN, own.len), first = own.first + group * ROWS;
            u32 tile = (all - 1) / N;
            // Tiles that no query of this group sees.
            for (; tile * N >= first + ROWS; tile--) {
                barrier_wait(full_keys + of_keys.slot, of_keys.turn);
                done_with(empty_keys + of_keys.slot);
                of_keys.next();
                barrier_wait(full_values + of_values.slot, of_values.turn);
                done_with(empty_values + of_values.slot);
                of_values.next();
                turn_wait(1 + group, GROUPS * GROUP);
                turn_pass(2 - group, GROUPS * GROUP);
            }
            float mixed[D / 2], scores[N / 2], sum[2] = {}, top[2] = {-infinity(), -infinity()}, fade[2];
            u32 weights[N / 16][4];
#pragma unroll
            for (int i = 0; i < D / 2; i++) mixed[i] = 0.0f;
            barrier_wait(full_queries, turn);
            turn ^= 1;
            u32 rows[D / 16][4];
            held<D, OWN>(rows, queries, group * ROWS);
            done_with(empty_queries);
            barrier_wait(full_keys + of_keys.slot, of_keys.turn);
            turn_wait(1 + group, GROUPS * GROUP);
            hold(scores);
            products_begin();
            products<D, N>(scores, rows, keys + of_keys.slot * BYTES);
            products_commit();
            turn_pass(2 - group, GROUPS * GROUP);
            products_wait<0>();
            hold(scores);
            done_with(empty_keys + of_keys.slot);
            of_keys.next();
#pragma unroll
            for (int i = 0; i < N / 2; i++)
                if (tile * N + column_of(i) > first + row_of(i)) scores[i] = -infinity();
            weigh<N>(scores, c, top, sum, fade);
            rounded<N>(weights, scores);
            for (; tile > 0; tile--) {
                barrier_wait(full_keys + of_keys.slot, of_keys.turn);
                turn_wait(1 + group, GROUPS * GROUP);
                hold(scores);
                hold(mixed);
                hold(weights);
                products_begin();
                products<D, N>(scores, rows, keys + of_keys.slot * BYTES);
                products_commit();
                barrier_wait(full_values + of_values.slot, of_values.turn);
                mix<D, N>(mixed, weights, values + of_values.slot * BYTES);
                products_commit();
                turn_pass(2 - group, GROUPS * GROUP);
                products_wait<1>();
                hold(scores);
                done_with(empty_keys + of_keys.slot);
                of_keys.next();
                weigh<N>(scores, c, top, sum, fade);
                products_wait<0>();
                hold(mixed);
                hold(weights);
                done_with(empty_values + of_values.slot);
                of_values.next();
#pragma unroll
                for (int i = 0; i < D / 2; i++) mixed[i] *= fade[i / 2 % 2];
                rounded<N>(weights, scores);
            }
            barrier_wait(full_values + of_values.slot, of_values.turn);
            hold(mixed);
            hold(weights);
            products_begin();
            mix<D, N>(mixed, weights, values + of_values.slot * BYTES);
            products_commit();
#pragma unroll
            for (int half = 0; half < 2; half++) {
                sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
                sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
            }
            products_wait<0>();
            hold(mixed);
            done_with(empty_values + of_values.slot);
            of_values.next();
            float inverse[2] = {1.0f / sum[0], 1.0f / sum[1]};
#pragma unroll
            for (int i = 0; i < D / 2; i++) mixed[i] *= inverse[i / 2 % 2];
            u32 left = first < own.len ? own.len - first : 0;
            store<D>(mixed, out + u64(own.start + first) * wide + head * D, wide, left);
            // Of the four threads of a row two store a statistic each.
            u32 half = threadIdx.x % 2, row = row_of(half * 2);
            if (threadIdx.x % 4 < 2 && row < left) {
                lse[head * tokens + own.start + first + row] =
                    (half ? top[1] : top[0]) * LN_2 + float(ln_exact(double(half ? sum[1] : sum[0])));
            }
        }
    }
}

// Entry points by the elements of a head.
#define PARAMETERS                                                                                                     \
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, const Work *work, u32 heads, u32 kv_heads,     \
        u32 tokens, float scale, u32 tiles
#define ARGUMENTS q, k, v, out, lse, work, heads, kv_heads, tokens, scale, tiles

extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_wgmma_64_bf16(PARAMETERS) {
    forward<64, 128, 2>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_wgmma_128_bf16(PARAMETERS) {
    forward<128, 128, 2>(ARGUMENTS);
}
