// Gradients of attention. With p = exp(scale * q k^T - lse) and ds = p * (dout v^T - delta) * scale:
// dq = ds k, dk = ds^T q, dv = p^T dout, where delta = <dout, out>. Nothing is added by two blocks: scores are computed
// twice, once by tiles of queries and once by tiles of keys.
// Specification: ops/attention, `backward`; p and ds are rounded to bf16 before they are a factor, so that gradients
// are within one unit of bf16 of their row's largest element, but for about one in a million.
// dq reads k, v once for every 128 queries of a head; dk and dv read q, dout once for every 64 keys (all from L2,
// mostly). attention_delta.cu has delta.
// Estimates for D = 128, as in the forward file: dq does 768 mma for 32 keys and reads 160 KB of shared memory, 1.7
// clocks each; dk and dv do 1024 for 64 queries and read 288 KB, 2.25 clocks each, which is their limit on Hopper. 255
// registers and 96 KB each, as in forward. Against the least, scores are multiplied out once more: 7 products for 5.
// budget: registers 255, spills 0
// expects sm_89: HMMA
// expects sm_89: LDSM
// expects sm_89: LDGSTS
// expects sm_90a: HMMA
// expects sm_90a: LDSM
// expects sm_90a: LDGSTS
#include "attention.cuh"

// A block takes 128 queries of a head, a warp 32 of them, and walks the keys they see, 32 at a time.
template <int D>
__device__ inline void dq_of(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                             const float* delta, bf16* dq, const Work* work, u32 heads, u32 kv_heads, u32 tokens,
                             float scale) {
    const int M = QUERIES / WARPS / 16, N = 4;
    const u32 SPAN = N * 8, OWN = QUERIES * Tile<D>::ROW, BYTES = SPAN * Tile<D>::ROW;
    u8 *queries = dynamic_shared(), *douts = queries + OWN, *keys = douts + OWN, *values = keys + 2 * BYTES;
    Work own = work[blockIdx.y];
    u32 head = blockIdx.x, warp = threadIdx.x / 32;
    u32 wide = heads * D, narrow = kv_heads * D;
    u64 at = u64(own.start + own.first) * wide + head * D;
    u64 kv = u64(own.start) * narrow + head / (heads / kv_heads) * D + Fetch<D>::start(narrow);
    u32 first = own.first + warp * M * 16;
    u32 seen = first < own.len ? least(first + M * 16, own.len) : 0;
    u32 all = least(own.first + QUERIES, own.len);

    u64 start = at + Fetch<D>::start(wide);
    fetch<D, QUERIES>(queries, q + start, wide, own.len - own.first);
    fetch<D, QUERIES>(douts, dout + start, wide, own.len - own.first);
    fetch<D, SPAN>(keys, k + kv, narrow, own.len);
    fetch<D, SPAN>(values, v + kv, narrow, own.len);
    copy_async_commit();

    float grown[M][D / 8][4] = {}, base[M][2], deltas[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 row = first + m * 16 + row_of(half * 2);
            u32 place = head * tokens + own.start + row;
            base[m][half] = row < own.len ? -lse[place] * LOG2_E : -infinity();
            deltas[m][half] = row < own.len ? delta[place] : 0.0f;
        }
    const float c = scale * LOG2_E;
    u32 key = 0, buffer = 0;
    do {
        copy_async_wait<0>();
        __syncthreads();
        u32 next = key + SPAN;
        if (next < all) {
            kv += u64(SPAN) * narrow;
            fetch<D, SPAN>(keys + (buffer ^ 1) * BYTES, k + kv, narrow, own.len - next);
            fetch<D, SPAN>(values + (buffer ^ 1) * BYTES, v + kv, narrow, own.len - next);
            copy_async_commit();
        }
        if (key < seen) {
            float scores[M][N][4], dweights[M][N][4];
            products<D, M, N>(scores, down<D>(queries, warp * M * 16), across<D>(keys + buffer * BYTES));
            products<D, M, N>(dweights, down<D>(douts, warp * M * 16), across<D>(values + buffer * BYTES));
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float weight = exp2_fast(fmaf(scores[m][n][i], c, base[m][i / 2]));
                        scores[m][n][i] = weight * (dweights[m][n][i] - deltas[m][i / 2]);
                    }
            if (next > first) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < N; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            if (key + n * 8 + column_of(i) > first + m * 16 + row_of(i)) scores[m][n][i] = 0.0f;
            }
            mix<D, M, N>(grown, scores, down<D>(keys + buffer * BYTES));
        }
        key = next;
        buffer ^= 1;
    } while (key < all);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) grown[m][n][i] *= scale;
    u32 rows = first < own.len ? own.len - first : 0;
    store<D, M>(grown, queries, warp * M * 16, dq + at + u64(warp * M * 16) * wide, wide, rows);
}

// A block takes 64 keys of a key-value head, a warp 16 of them, and walks the queries that see them, 64 at a time, of
// one head of the group after the other. Scores are transposed here: a row a key.
template <int D>
__device__ inline void dkv_of(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
                              const float* delta, bf16* dk, bf16* dv, const Work* work, u32 heads, u32 kv_heads,
                              u32 tokens, float scale) {
    const int N = KEYS / 8;
    const u32 TILE = KEYS, BYTES = TILE * Tile<D>::ROW;
    u8 *keys = dynamic_shared(), *values = keys + BYTES, *queries = values + BYTES, *douts = queries + 2 * BYTES;
    float* statistics = reinterpret_cast<float*>(douts + 2 * BYTES);
    Work own = work[blockIdx.y];
    u32 kv = blockIdx.x, group = heads / kv_heads, warp = threadIdx.x / 32;
    u32 wide = heads * D, narrow = kv_heads * D;
    // Counted from the tile's first key: tokens of the sequence, and the first key of this warp.
    u32 len = own.len - own.first, first = warp * 16;

    u32 query = 0, buffer = 0, left = group;
    u64 start = u64(own.start + own.first) * narrow + kv * D + Fetch<D>::start(narrow);
    fetch<D, TILE>(keys, k + start, narrow, len);
    fetch<D, TILE>(values, v + start, narrow, len);
    // Where this thread fetches queries and a statistic: half of the threads an lse each, the others a delta.
    u64 from = u64(own.start + own.first) * wide + kv * group * D + Fetch<D>::start(wide);
    u32 place = kv * group * tokens + own.start + own.first + threadIdx.x % TILE;
    auto fetch_queries = [&](u32 to, u32 count) {
        fetch<D, TILE>(queries + to * BYTES, q + from, wide, count);
        fetch<D, TILE>(douts + to * BYTES, dout + from, wide, count);
        copy_async_commit();
        if (threadIdx.x >= TILE) return threadIdx.x % TILE < count ? delta[place] : 0.0f;
        return threadIdx.x < count ? -lse[place] * LOG2_E : -infinity();
    };
    statistics[threadIdx.x] = fetch_queries(0, len);

    float dks[1][D / 8][4] = {}, dvs[1][D / 8][4] = {};
    const float c = scale * LOG2_E;
    do {
        copy_async_wait<0>();
        __syncthreads();
        u32 next = query + TILE;
        from += u64(TILE) * wide;
        place += TILE;
        if (next >= len) {
            from += D - u64(next) * wide;
            place += tokens - next;
            next = 0;
            left--;
        }
        float fetched = left > 0 ? fetch_queries(buffer ^ 1, len - next) : 0.0f;
        if (first < len) {
            const float* bases = statistics + buffer * 2 * TILE;
            float weights[1][N][4], dweights[1][N][4];
            products<D, 1, N>(weights, down<D>(keys, first), across<D>(queries + buffer * BYTES));
            const bool partly = query == 0 || query + TILE > len;
            auto hidden = [&](int n, int i) {
                u32 column = query + n * 8 + column_of(i);
                return column < first + row_of(i) || column >= len;
            };
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    weights[0][n][i] = exp2_fast(fmaf(weights[0][n][i], c, bases[n * 8 + column_of(i)]));
                }
            if (partly) {
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (hidden(n, i)) weights[0][n][i] = 0.0f;
            }
            mix<D, 1, N>(dvs, weights, down<D>(douts + buffer * BYTES));
            products<D, 1, N>(dweights, down<D>(values, first), across<D>(douts + buffer * BYTES));
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    weights[0][n][i] *= dweights[0][n][i] - bases[TILE + n * 8 + column_of(i)];
                }
            if (partly) {
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (hidden(n, i)) weights[0][n][i] = 0.0f;
            }
            mix<D, 1, N>(dks, weights, down<D>(queries + buffer * BYTES));
        }
        statistics[(buffer ^ 1) * 2 * TILE + threadIdx.x] = fetched;
        query = next;
        buffer ^= 1;
    } while (left > 0);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) dks[0][n][i] *= scale;
    u32 rows = first < len ? len - first : 0;
    // Read again, since no register was free to keep it.
    own = work[blockIdx.y];
    u64 to = u64(own.start + own.first + first) * narrow + kv * D;
    store<D, 1>(dks, keys, first, dk + to, narrow, rows);
    store<D, 1>(dvs, values, first, dv + to, narrow, rows);
}

// Entry points by the elements of a head.
#define PARAMETERS(...)                                                                                                \
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse, const float *delta, __VA_ARGS__,  \
        const Work *work, u32 heads, u32 kv_heads, u32 tokens, float scale
#define ARGUMENTS(...) q, k, v, dout, lse, delta, __VA_ARGS__, work, heads, kv_heads, tokens, scale
#define DQ_PARAMETERS PARAMETERS(bf16* dq)
#define DQ_ARGUMENTS ARGUMENTS(dq)
#define DKV_PARAMETERS PARAMETERS(bf16* dk, bf16* dv)
#define DKV_ARGUMENTS ARGUMENTS(dk, dv)

extern "C" __global__ void __launch_bounds__(128, 3) attention_dq_16_bf16(DQ_PARAMETERS) { dq_of<16>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128, 3) attention_dq_32_bf16(DQ_PARAMETERS) { dq_of<32>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128, 3) attention_dq_64_bf16(DQ_PARAMETERS) { dq_of<64>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dq_80_bf16(DQ_PARAMETERS) { dq_of<80>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dq_96_bf16(DQ_PARAMETERS) { dq_of<96>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dq_128_bf16(DQ_PARAMETERS) { dq_of<128>(DQ_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_16_bf16(DKV_PARAMETERS) { dkv_of<16>(DKV_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_32_bf16(DKV_PARAMETERS) { dkv_of<32>(DKV_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_64_bf16(DKV_PARAMETERS) { dkv_of<64>(DKV_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_80_bf16(DKV_PARAMETERS) { dkv_of<80>(DKV_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_96_bf16(DKV_PARAMETERS) { dkv_of<96>(DKV_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_dkv_128_bf16(DKV_PARAMETERS) { dkv_of<128>(DKV_ARGUMENTS); }
