// Casts with a scale for 128 elements of a row (codes as x lies), for 128 of a column (codes turned over), both at
// once, or one for 128 x 128 (either layout, or both). Factors are 1 / s, in cuBLASLt's order: of row m and block b at
// [b][m], rows padded to fours; of column k and block b of rows at [b][k]; of a square the block of the contraction
// last, padded to fours.
// Specification: fp8flow-kernels' `cast_blocks`, `cast_row_and_col_blocks`. A block takes 128 x 128, and holds them in
// registers until the scales are known. Reads 2 or 4 bytes an element, writes 1 for each layout, and 4 / 128.
// Expected: 85 % of copy bandwidth.
// budget: registers 128, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
// expects sm_89: STG.E.128
// expects sm_90a: STG.E.128
#include "cast.cuh"

const u32 SIDE = 128;

// Maxima of columns by warp, in words, and of rows.
template <class A> struct Tops {
    static const u32 IN_WORD = 4 / sizeof(A);
    u32 cols[8][SIDE / IN_WORD];
    u32 rows[SIDE];
};

template <class A, bool NAN> __device__ inline void find(Tops<A>& tops, const Eight<A> (&held)[2][4], Place at) {
    const u32 WORDS = Eight<A>::WORDS;
    u32 own_rows[4] = {}, lane = threadIdx.x % 32;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 own_cols[WORDS] = {};
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
#pragma unroll
            for (u32 i = 0; i < WORDS; i++) {
                own_cols[i] = higher<A, NAN>(own_cols[i], held[half][r].words[i]);
                own_rows[r] = higher<A, NAN>(own_rows[r], held[half][r].words[i]);
            }
        }
        share_out<A, NAN>(own_cols, 8, 4);
        u32 first = (half * 8 + at.group) * WORDS + lane / 8;
#pragma unroll
        for (u32 i = 0; i < WORDS / 4; i++) tops.cols[threadIdx.x / 32][first + i * 4] = own_cols[i];
    }
    share_out<A, NAN>(own_rows, 1, 4);
    u32 top = largest_of(top_of<A>(own_rows[0]), 4, 4);
    if (at.group < 4) tops.rows[at.quad * 4 + at.group] = top;
}

// A layout that is not wanted has no codes.
template <class A, class F>
__device__ void cast_blocks(const A* x, u8* codes, u8* turned, float* factors, float* factors_turned,
                            Counters* counters, u64 rows, u64 cols, u32 square, u32 rule, u32 count) {
    __shared__ Turned stripes[2];
    __shared__ Tops<A> tops;
    __shared__ u32 of_warps[32];
    __shared__ float4 col_scales[SIDE / 4];
    __shared__ float4 row_scales[SIDE / 4];
    u32 across = u32((cols + SIDE - 1) / SIDE), down = u32((rows + SIDE - 1) / SIDE);
    u64 block_row = last_first() / across, block_col = last_first() % across;
    u64 first_row = block_row * SIDE, first_col = block_col * SIDE;
    Place at = place();
    u64 row = first_row + at.quad * 4, col = first_col + at.group * 8;
    Eight<A> held[2][4];
#pragma unroll
    for (u32 half = 0; half < 2; half++) load_stripe(held[half], x, row, col + half * STRIPE_COLS, rows, cols);
    if (nan_wins(rule)) {
        find<A, true>(tops, held, at);
    } else {
        find<A, false>(tops, held, at);
    }
    __syncthreads();

    // Half of the threads have a column each, the others a row.
    bool by_row = threadIdx.x >= SIDE;
    u32 own = threadIdx.x % SIDE, top = by_row ? tops.rows[own] : 0;
    if (!by_row) {
        const u32 IN_WORD = Tops<A>::IN_WORD;
        for (u32 w = 0; w < 8; w++) top = larger(top, top_of<A>(tops.cols[w][own / IN_WORD], own % IN_WORD));
    }
    if (square) top = largest_of_block(top, of_warps);
    float scale = scale_of<F>(__uint_as_float(top), rule);
    reinterpret_cast<float*>(by_row ? row_scales : col_scales)[own] = scale;
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

    __syncthreads();

    float4 of_rows = row_scales[at.quad];
    if (count) {
        bool count_rows = codes, count_cols = turned && !(square && codes);
        Lost lost = {};
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 half = i / 8, r = i / 2 % 4, h = i % 2;
            float part[4], scale = part_of(of_rows, r);
            held[half][r].four(h, part);
            if (count_rows) lost.see<F>(part, {scale, scale, scale, scale});
            if (count_cols) lost.see<F>(part, col_scales[half * 16 + at.group * 2 + h]);
        }
        lost.report(counters);
    }
    u32 there = rows_there(row, rows);
    if (codes && row < padded(rows)) {
        u8* to = codes + row * cols + col;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                uint2 both = only_if(r < there, encode<F>(held[half][r], part_of(of_rows, r)));
                if (col + half * STRIPE_COLS < cols) *reinterpret_cast<uint2*>(to + half * STRIPE_COLS) = both;
            }
            to += cols;
        }
    }
    if (turned) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 half = i / 2, h = i % 2, words[4];
            float4 scales = col_scales[half * 16 + at.group * 2 + h];
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                float part[4];
                held[half][r].four(h, part);
                words[r] = only_if(r < there, encode<F>(part, scales));
            }
            turn(stripes[half], at.group * 8 + h * 4, at.quad, words);
        }
        __syncthreads();
        for (u32 half = 0; half < 2; half++) {
            store_turned(stripes[half], turned, first_row, first_col + half * STRIPE_COLS, rows, cols);
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
extern "C" __global__ void __launch_bounds__(256, 2) cast_blocks_f32_e4m3(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<float, E4m3>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
extern "C" __global__ void __launch_bounds__(256, 2) cast_blocks_f32_e5m2(
    const float* x, u8* codes, u8* turned, float* factors, float* factors_turned, Counters* counters, u64 rows,
    u64 cols, u32 square, u32 rule, u32 count) {
    cast_blocks<float, E5m2>(x, codes, turned, factors, factors_turned, counters, rows, cols, square, rule, count);
}
