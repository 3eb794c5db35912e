// Casts with a scale a row (codes as x lies), a scale a column (codes turned over), or both in one read, from maxima.
// codes[m,k] = encode(x[m,k] * s[m]), turned[k,m] = encode(x[m,k] * t[k]); factors are 1 / s and 1 / t.
// Specification: fp8flow-kernels' `cast_rows`, `cast_cols`. A block takes 128 rows of 64 columns, the first ones first:
// they are what `amax_lines` has left in L2. Reads 2 or 4 bytes an element, once; writes 1 for each layout: 64 bytes of
// a row, 128 of a column at a time. Expected: 85 % of copy bandwidth.
// budget: registers 64, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
// expects sm_89: STG.E.128
// expects sm_90a: STG.E.128
#include "cast.cuh"

// A layout that is not wanted has no codes.
template <class A, class F>
__device__ void cast_lines(const A* x, u8* codes, u8* turned, float* factors, float* factors_turned,
                           const float* row_maxima, const float* col_maxima, Counters* counters, u64 rows, u64 cols,
                           u32 rule, u32 count) {
    __shared__ Turned stripe;
    __shared__ float4 row_scales[STRIPE_ROWS / 4];
    __shared__ float4 col_scales[STRIPE_COLS / 4];
    u32 across = u32((cols + STRIPE_COLS - 1) / STRIPE_COLS);
    u64 first_row = u64(blockIdx.x / across) * STRIPE_ROWS, first_col = u64(blockIdx.x % across) * STRIPE_COLS;
    Place at = place();
    u64 row = first_row + at.quad * 4, col = first_col + at.group * 8;
    Eight<A> x4[4];
    load_stripe(x4, x, row, col, rows, cols);

    // Half of the threads have a row's scale each, half of the others a column's.
    bool by_row = threadIdx.x < STRIPE_ROWS;
    u32 line = threadIdx.x % STRIPE_ROWS;
    u64 own = (by_row ? first_row : first_col) + line;
    if (by_row ? codes && own < rows : turned && line < STRIPE_COLS && own < cols) {
        float scale = scale_of<F>((by_row ? row_maxima : col_maxima)[own], rule);
        reinterpret_cast<float*>(by_row ? row_scales : col_scales)[line] = scale;
        if ((by_row ? first_col : first_row) == 0) (by_row ? factors : factors_turned)[own] = 1.0f / scale;
    }
    __syncthreads();
    // Outside of the matrix there are no scales, but zeros, which lose nothing by whatever is there.
    float4 of_rows = row_scales[at.quad];
    if (count) {
        Lost lost = {};
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            float scale = part_of(of_rows, r);
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                float part[4];
                x4[r].four(h, part);
                if (codes) lost.see<F>(part, {scale, scale, scale, scale});
                if (turned) lost.see<F>(part, col_scales[at.group * 2 + h]);
            }
        }
        lost.report(counters);
    }
    u32 there = rows_there(row, rows);
    if (codes && col < cols && row < padded(rows)) {
        u8* to = codes + row * cols + col;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            *reinterpret_cast<uint2*>(to) = only_if(r < there, encode<F>(x4[r], part_of(of_rows, r)));
            to += cols;
        }
    }
    if (turned) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            float4 scales = col_scales[at.group * 2 + h];
            u32 words[4];
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                float part[4];
                x4[r].four(h, part);
                words[r] = only_if(r < there, encode<F>(part, scales));
            }
            turn(stripe, at.group * 8 + h * 4, at.quad, words);
        }
        __syncthreads();
        store_turned(stripe, turned, first_row, first_col, rows, cols);
    }
}

extern "C" __global__ void __launch_bounds__(256, 5) cast_lines_bf16_e4m3(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* row_maxima,
    const float* col_maxima, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_lines<bf16, E4m3>(x, codes, turned, factors, factors_turned, row_maxima, col_maxima, counters, rows, cols,
                           rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 5) cast_lines_bf16_e5m2(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* row_maxima,
    const float* col_maxima, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_lines<bf16, E5m2>(x, codes, turned, factors, factors_turned, row_maxima, col_maxima, counters, rows, cols,
                           rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 4) cast_lines_f32_e4m3(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* row_maxima,
    const float* col_maxima, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_lines<float, E4m3>(x, codes, turned, factors, factors_turned, row_maxima, col_maxima, counters, rows, cols,
                           rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 4) cast_lines_f32_e5m2(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, const float* row_maxima,
    const float* col_maxima, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_lines<float, E5m2>(x, codes, turned, factors, factors_turned, row_maxima, col_maxima, counters, rows, cols,
                           rule, count);
}
