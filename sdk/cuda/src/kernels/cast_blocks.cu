// Casts with a scale for 128 elements of a row (codes as x lies), for 128 of a column (codes turned over), both at
// once, or one for 128 x 128 (either layout, or both). Factors are 1 / s, in cuBLASLt's order: of row m and block b at
// [b][m], rows padded to fours; of column k and block b of rows at [b][k]; of a square the block of the contraction
// last, padded to fours.
// Specification: fp8flow-kernels' `cast_blocks`, `cast_row_and_col_blocks`. A block takes 128 x 128, so that nothing
// leaves it but results. Reads 2 or 4 bytes an element of memory, and the same again of L1 once the scales are known,
// and where losses are counted; writes 1 for each layout, and 4 / 128. Expected: 75 % of copy bandwidth.
// budget: registers 80, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
// expects sm_89: STG.E.128
// expects sm_90a: STG.E.128
#include "cast.cuh"

const u32 SIDE = 128;

// A layout that is not wanted has no codes.
template <class A, class F>
__device__ void cast_blocks(const A* x, u8* codes, u8* turned, float* factors, float* factors_turned,
                            Counters* counters, u64 rows, u64 cols, u32 square, u32 rule, u32 count) {
    __shared__ Turned stripe;
    __shared__ u32 col_tops[8][SIDE];
    __shared__ u32 row_tops[SIDE];
    __shared__ u32 tops[32];
    __shared__ float4 col_scales[SIDE / 4];
    __shared__ float row_scales[SIDE];
    u32 across = u32((cols + SIDE - 1) / SIDE), down = u32((rows + SIDE - 1) / SIDE);
    u64 block_row = blockIdx.x / across, block_col = blockIdx.x % across;
    u64 first_row = block_row * SIDE, first_col = block_col * SIDE;
    Place at = place();
    u64 row = first_row + at.quad * 4;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool nan = nan_wins(rule);

    u32 own_rows[4] = {};
#pragma unroll 1
    for (u32 half = 0; half < 2; half++) {
        u32 within = half * STRIPE_COLS + at.group * 8;
        Eight<A> x4[4];
        load_stripe(x4, x, row, first_col + within, rows, cols);
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 own_cols[4] = {};
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                float part[4];
                x4[r].four(h, part);
                for (u32 j = 0; j < 4; j++) {
                    own_cols[j] = greater(own_cols[j], part[j], nan);
                    own_rows[r] = greater(own_rows[r], part[j], nan);
                }
            }
            for (u32 j = 0; j < 4; j++) {
                u32 top = largest_of(own_cols[j], 8, 16);
                if (lane < 8) col_tops[warp][within + h * 4 + j] = top;
            }
        }
    }
    for (u32 r = 0; r < 4; r++) {
        u32 top = largest_of(own_rows[r], 1, 4);
        if (at.group == 0) row_tops[at.quad * 4 + r] = top;
    }
    __syncthreads();

    // Half of the threads have a column each, the others a row.
    bool by_row = threadIdx.x >= SIDE;
    u32 own = threadIdx.x % SIDE, top = by_row ? row_tops[own] : 0;
    if (!by_row) {
        for (u32 w = 0; w < 8; w++) top = larger(top, col_tops[w][own]);
    }
    if (square) top = largest_of_block(top, tops);
    float scale = scale_of<F>(__uint_as_float(top), rule);
    (by_row ? row_scales : reinterpret_cast<float*>(col_scales))[own] = scale;
    bool kept = false;
    if (square) {
        kept = threadIdx.x == 0;
        if (kept && codes) factors[block_row * fours(across) + block_col] = 1.0f / scale;
        if (kept && turned) factors_turned[block_col * fours(down) + block_row] = 1.0f / scale;
    } else if (by_row) {
        kept = codes && first_row + own < fours(rows);
        if (kept) factors[block_col * fours(rows) + first_row + own] = 1.0f / scale;
    } else {
        kept = turned && first_col + own < cols;
        if (kept) factors_turned[block_row * cols + first_col + own] = 1.0f / scale;
    }
    if (kept && top >= INFINITE) atomicAdd(&counters->non_finite, 1ull);

    if (count) {
        __syncthreads();
        bool count_rows = codes, count_cols = turned && !(square && codes);
        Lost lost = {};
#pragma unroll 1
        for (u32 half = 0; half < 2; half++) {
            u32 within = half * STRIPE_COLS + at.group * 8;
            Eight<A> x4[4];
            load_stripe(x4, x, row, first_col + within, rows, cols);
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                float part[4];
                x4[i / 2].four(i % 2, part);
                float scale = row_scales[at.quad * 4 + i / 2];
                if (count_rows) lost.see<F>(part, {scale, scale, scale, scale});
                if (count_cols) lost.see<F>(part, col_scales[within / 4 + i % 2]);
            }
        }
        lost.report(counters);
    }
#pragma unroll 1
    for (u32 half = 0; half < 2; half++) {
        // Scales are there, and the half before has left the stripe.
        __syncthreads();
        u32 within = half * STRIPE_COLS + at.group * 8;
        u64 col = first_col + within;
        Eight<A> x4[4];
        load_stripe(x4, x, row, col, rows, cols);
        if (codes && col < cols) {
            u8* to = codes + row * cols + col;
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                float scale = row_scales[at.quad * 4 + r];
                float first[4], second[4];
                x4[r].four(0, first), x4[r].four(1, second);
                float4 scales = {scale, scale, scale, scale};
                uint2 both = {encode<F>(first, scales), encode<F>(second, scales)};
                // Zeros times a NaN would be a code of NaN.
                if (row + r >= rows) both = {0, 0};
                if (row + r < padded(rows)) *reinterpret_cast<uint2*>(to) = both;
                to += cols;
            }
        }
        if (turned) {
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                float4 scales = col_scales[within / 4 + h];
                u32 words[4];
#pragma unroll
                for (u32 r = 0; r < 4; r++) {
                    float part[4];
                    x4[r].four(h, part);
                    words[r] = row + r < rows ? encode<F>(part, scales) : 0;
                }
                turn(stripe, at.group * 8 + h * 4, at.quad, words);
            }
            __syncthreads();
            store_turned(stripe, turned, first_row, first_col + half * STRIPE_COLS, rows, cols);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) cast_blocks_bf16_e4m3(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<bf16, E4m3>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 4) cast_blocks_bf16_e5m2(
    const bf16* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<bf16, E5m2>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 3) cast_blocks_f32_e4m3(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<float, E4m3>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 3) cast_blocks_f32_e5m2(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<float, E5m2>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
