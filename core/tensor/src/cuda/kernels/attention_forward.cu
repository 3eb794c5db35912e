// Causal grouped-query attention: out = softmax(scale * q k^T) v within each sequence, and lse, the logarithm of the
// softmax's denominator (Dao 2023, "FlashAttention-2").
// Specification: ops/attention, `forward`; weights are rounded to bf16 before they meet v, so that out is within one
// unit of bf16 of its row's largest element, but for about one element in a million, whose terms cancel.
// Reads q once and k, v once for every 128 queries of a head (from L2, mostly); writes out and lse once.
// Estimates for D = 128: a block does 1024 mma for 64 keys and reads 160 KB of shared memory for them, 1.25 clocks of
// it each, where an mma takes 1.6 clocks of a Hopper multiprocessor and 4 of an Ada one: mma is the limit. 255
// registers and 96 KB: two blocks a multiprocessor on Hopper, one on Ada.
// budget: registers 255, spills 0
// expects sm_89: HMMA
// expects sm_89: LDSM
// expects sm_89: LDGSTS
// expects sm_90a: HMMA
// expects sm_90a: LDSM
// expects sm_90a: LDGSTS
#include "attention.cuh"
#include "math.cuh"

// Turns scores into weights exp2(c * score - top), where `top` is the new maximum of a row, up to the next integer: what
// rounds a weight does not depend on the tiles before, and nothing is lost where older weights fade. `sum` gains this
// thread's share of them, and `fade` is what older weights are to be multiplied with. Returns whether some row's is not 1.
template <int M, int N>
__device__ inline bool weigh(float (&scores)[M][N][4], float c, float (&top)[M][2], float (&sum)[M][2],
                             float (&fade)[M][2]) {
    bool fades = false;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            // A NaN passes by: its weight will be one, and spoil all that a query gets.
            float most = -infinity();
#pragma unroll
            for (int n = 0; n < N; n++) most = fmaxf(most, fmaxf(scores[m][n][half * 2], scores[m][n][half * 2 + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            most = fmaxf(top[m][half], ceilf(most * c));
            fade[m][half] = exp2_fast(top[m][half] - most);
            fades |= fade[m][half] != 1.0f;
            top[m][half] = most;
            float base = -most, total = 0.0f;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = half * 2; i < half * 2 + 2; i++) {
                    scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], c, base));
                    total += scores[m][n][i];
                }
            sum[m][half] = fmaf(sum[m][half], fade[m][half], total);
        }
    return __any_sync(0xffffffffu, fades);
}

// A block takes 128 queries of a head, a warp 32 of them: two rows of fragments, so that each fragment of k and v that
// is read from shared memory serves twice. The next tile of 64 keys is fetched while one is worked on.
template <int D>
__device__ inline void forward(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, const Work* work,
                               u32 heads, u32 kv_heads, u32 tokens, float scale) {
    const int M = QUERIES / WARPS / 16, N = KEYS / 8;
    const u32 BYTES = KEYS * Tile<D>::ROW;
    u8 *queries = dynamic_shared(), *keys = queries + QUERIES * Tile<D>::ROW, *values = keys + 2 * BYTES;
    Work own = work[blockIdx.y];
    u32 head = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 wide = heads * D, narrow = kv_heads * D;
    u64 kv = u64(own.start) * narrow + head / (heads / kv_heads) * D + Fetch<D>::start(narrow);
    u64 at = u64(own.start + own.first) * wide + head * D;
    // The queries of this warp: the first in the sequence, and how many keys they see.
    u32 first = own.first + warp * M * 16;
    u32 seen = first < own.len ? least(first + M * 16, own.len) : 0;
    u32 all = least(own.first + QUERIES, own.len);

    fetch<D, QUERIES>(queries, q + at + Fetch<D>::start(wide), wide, own.len - own.first);
    fetch<D, KEYS>(keys, k + kv, narrow, own.len);
    fetch<D, KEYS>(values, v + kv, narrow, own.len);
    copy_async_commit();

    float mixed[M][D / 8][4] = {}, sum[M][2] = {}, top[M][2];
    for (int m = 0; m < M; m++) top[m][0] = top[m][1] = -infinity();
    const float c = scale * LOG2_E;
    u32 key = 0, buffer = 0;
    do {
        copy_async_wait<0>();
        __syncthreads();
        u32 next = key + KEYS;
        if (next < all) {
            kv += u64(KEYS) * narrow;
            fetch<D, KEYS>(keys + (buffer ^ 1) * BYTES, k + kv, narrow, own.len - next);
            fetch<D, KEYS>(values + (buffer ^ 1) * BYTES, v + kv, narrow, own.len - next);
            copy_async_commit();
        }
        if (key < seen) {
            float scores[M][N][4], fade[M][2];
            products<D, M, N>(scores, down<D>(queries, warp * M * 16), across<D>(keys + buffer * BYTES));
            if (next > first) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < N; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            if (key + n * 8 + column_of(i) > first + m * 16 + row_of(i)) scores[m][n][i] = -infinity();
            }
            if (weigh(scores, c, top, sum, fade)) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < D / 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++) mixed[m][n][i] *= fade[m][i / 2];
            }
            mix<D, M, N>(mixed, scores, down<D>(values + buffer * BYTES));
        }
        key = next;
        buffer ^= 1;
    } while (key < all);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 1);
            sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 2);
            float inverse = 1.0f / sum[m][half];
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int i = half * 2; i < half * 2 + 2; i++) mixed[m][n][i] *= inverse;
        }
    u32 rows = first < own.len ? own.len - first : 0;
    store<D, M>(mixed, queries, warp * M * 16, out + at + u64(warp * M * 16) * wide, wide, rows);
    // The four threads of a row share its statistics; each takes one of the rows.
    u32 pick = lane % 4, row = pick * 8 + lane / 4;
    float denominator = pick & 1 ? (pick & 2 ? sum[1][1] : sum[0][1]) : (pick & 2 ? sum[1][0] : sum[0][0]);
    float most = pick & 1 ? (pick & 2 ? top[1][1] : top[0][1]) : (pick & 2 ? top[1][0] : top[0][0]);
    if (row < rows) {
        lse[head * tokens + own.start + first + row] = most * LN_2 + float(ln_exact(double(denominator)));
    }
}

// Entry points by the elements of a head.
#define PARAMETERS                                                                                                     \
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, const Work *work, u32 heads, u32 kv_heads,     \
        u32 tokens, float scale
#define ARGUMENTS q, k, v, out, lse, work, heads, kv_heads, tokens, scale

extern "C" __global__ void __launch_bounds__(128, 3) attention_forward_16_bf16(PARAMETERS) { forward<16>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128, 3) attention_forward_32_bf16(PARAMETERS) { forward<32>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_forward_64_bf16(PARAMETERS) { forward<64>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_forward_80_bf16(PARAMETERS) { forward<80>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_forward_96_bf16(PARAMETERS) { forward<96>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(128) attention_forward_128_bf16(PARAMETERS) { forward<128>(ARGUMENTS); }
