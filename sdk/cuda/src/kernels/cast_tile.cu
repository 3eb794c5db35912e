// Casts with one scale for all that is known before, given or from a maximum.
// codes[m,k] = encode(x[m,k] * s), as x lies, turned over, or both; factors are 1 / s.
// Specification: fp8flow-kernels' `cast_tensor`, `cast_tensor_with_amax`. A block takes 128 rows of 64 columns, those
// first that are in L2: of a matrix that `amax` has read the first, else the last. Reads 2 or 4 bytes an element, once;
// writes 1 for each layout: 64 bytes of a row, 128 of a column at a time.
// Expected: 85 % of copy bandwidth with one layout, 80 % with both.
// budget: registers 64, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
// expects sm_89: STG.E.128
// expects sm_90a: STG.E.128
#include "cast.cuh"

// Without a `maximum` that `rule` makes a scale of, it is `scale`. Either layout may be absent; so may `amax`, which is
// raised to the maximum of what is cast, NaN left out.
template <class A, class F>
__device__ void cast_tile(const A* x, u8* codes, u8* turned, float* factors, float* factors_turned,
                          const float* maximum, float scale, u32* amax, Counters* counters, u64 rows, u64 cols,
                          u32 rule, u32 count) {
    __shared__ Turned stripe;
    __shared__ u32 tops[32];
    u32 across = u32((cols + STRIPE_COLS - 1) / STRIPE_COLS), block = maximum ? blockIdx.x : last_first();
    u64 first_row = u64(block / across) * STRIPE_ROWS, first_col = u64(block % across) * STRIPE_COLS;
    Place at = place();
    u64 row = first_row + at.quad * 4, col = first_col + at.group * 8;
    Eight<A> x4[4];
    load_stripe(x4, x, row, col, rows, cols);

    if (maximum) scale = scale_of<F>(*maximum, rule);
    if (block == 0 && threadIdx.x == 0) {
        if (factors) *factors = 1.0f / scale;
        if (factors_turned) *factors_turned = 1.0f / scale;
    }
    float4 scales = {scale, scale, scale, scale};
    if (amax) {
        u32 top = 0;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            for (u32 word : x4[r].words) top = higher<A, false>(top, word);
        }
        top = largest_of_block(top_of<A>(top), tops);
        if (threadIdx.x == 0) raise(amax, top, counters);
    }
    if (count) {
        Lost lost = {};
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float part[4];
            x4[i / 2].four(i % 2, part);
            lost.see<F>(part, scales);
        }
        lost.report(counters);
    }

    u32 words[2][4];
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            float part[4];
            x4[r].four(h, part);
            // Zeros times a NaN would be a code of NaN.
            words[h][r] = row + r < rows ? encode<F>(part, scales) : 0;
        }
    }
    if (codes && col < cols && row < padded(rows)) {
        u8* to = codes + row * cols + col;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            *reinterpret_cast<uint2*>(to) = {words[0][r], words[1][r]};
            to += cols;
        }
    }
    if (turned) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) turn(stripe, at.group * 8 + h * 4, at.quad, words[h]);
        __syncthreads();
        store_turned(stripe, turned, first_row, first_col, rows, cols);
    }
}

extern "C" __global__ void __launch_bounds__(256, 6) cast_tile_bf16_e4m3(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* maximum, float scale,
    u32* amax, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_tile<bf16, E4m3>(x, codes, turned, factors, factors_turned, maximum, scale, amax, counters, rows, cols, rule,
                          count);
}
extern "C" __global__ void __launch_bounds__(256, 6) cast_tile_bf16_e5m2(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* maximum, float scale,
    u32* amax, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_tile<bf16, E5m2>(x, codes, turned, factors, factors_turned, maximum, scale, amax, counters, rows, cols, rule,
                          count);
}
extern "C" __global__ void __launch_bounds__(256, 4) cast_tile_f32_e4m3(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* maximum, float scale,
    u32* amax, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_tile<float, E4m3>(x, codes, turned, factors, factors_turned, maximum, scale, amax, counters, rows, cols, rule,
                          count);
}
extern "C" __global__ void __launch_bounds__(256, 4) cast_tile_f32_e5m2(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* maximum, float scale,
    u32* amax, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_tile<float, E5m2>(x, codes, turned, factors, factors_turned, maximum, scale, amax, counters, rows, cols, rule,
                          count);
}
