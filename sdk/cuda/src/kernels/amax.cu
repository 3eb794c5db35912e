// Absolute maxima: of all elements, or of each column. Raises what is there, which starts as zeros.
// Specification: fp8flow-kernels' `amax_for`. Each element is read once; at 16 bytes a load, four loads under way, this
// runs at the card's memory. Maxima are combined as bits, whose order is that of the magnitudes, in any order.
// budget: registers 40, spills 0
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
#include "cast.cuh"

template <class A> __device__ void amax(const A* x, u32* maximum, Counters* counters, u64 n, u32 nan) {
    __shared__ u32 tops[32];
    const u32 N = Vector<A>::N;
    u32 top = 0;
    u64 whole = n / N, step = thread_count(), i = thread_index();
    for (; i + 3 * step < whole; i += 4 * step) {
        Vector<A> parts[4];
#pragma unroll
        for (u32 p = 0; p < 4; p++) parts[p] = Vector<A>::load(x + (i + p * step) * N);
#pragma unroll
        for (u32 p = 0; p < 4; p++) {
            for (u32 j = 0; j < N; j++) top = greater(top, parts[p].x[j], nan);
        }
    }
    for (; i < whole; i += step) {
        Vector<A> part = Vector<A>::load(x + i * N);
        for (u32 j = 0; j < N; j++) top = greater(top, part.x[j], nan);
    }
    u64 rest = whole * N + thread_index();
    if (rest < n) top = greater(top, widen(x[rest]), nan);
    top = largest_of_block(top, tops);
    if (threadIdx.x == 0) raise(maximum, top, counters);
}

// A block takes 64 columns and `height` rows.
template <class A>
__device__ void amax_cols(const A* x, u32* maxima, Counters* counters, u64 rows, u64 cols, u32 height, u32 nan) {
    __shared__ u32 tops[8][STRIPE_COLS];
    u32 across = u32((cols + STRIPE_COLS - 1) / STRIPE_COLS);
    u32 group = threadIdx.x % 8;
    u64 first = u64(blockIdx.x % across) * STRIPE_COLS, col = first + group * 8;
    u64 row = u64(blockIdx.x / across) * height, end = row + height < rows ? row + height : rows;
    u32 top[8] = {};
    if (col < cols) {
#pragma unroll 2
        for (row += threadIdx.x / 8; row < end; row += 32) {
            Eight<A> eight = Eight<A>::load(x + row * cols + col);
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                float part[4];
                eight.four(j / 4, part);
                top[j] = greater(top[j], part[j % 4], nan);
            }
        }
    }
    for (u32 j = 0; j < 8; j++) {
        top[j] = largest_of(top[j], 8, 16);
        if (threadIdx.x % 32 < 8) tops[threadIdx.x / 32][group * 8 + j] = top[j];
    }
    __syncthreads();
    if (threadIdx.x < STRIPE_COLS && first + threadIdx.x < cols) {
        u32 most = 0;
        for (u32 warp = 0; warp < 8; warp++) most = larger(most, tops[warp][threadIdx.x]);
        raise(maxima + first + threadIdx.x, most, counters);
    }
}

extern "C" __global__ void __launch_bounds__(256) amax_bf16(
    const bf16* x, u32* maximum, Counters* counters, u64 n, u32 nan) { amax(x, maximum, counters, n, nan); }
extern "C" __global__ void __launch_bounds__(256) amax_f32(
    const float* x, u32* maximum, Counters* counters, u64 n, u32 nan) { amax(x, maximum, counters, n, nan); }
extern "C" __global__ void __launch_bounds__(256) amax_cols_bf16(
    const bf16* x, u32* maxima, Counters* counters, u64 rows, u64 cols, u32 height, u32 nan) {
    amax_cols(x, maxima, counters, rows, cols, height, nan);
}
extern "C" __global__ void __launch_bounds__(256) amax_cols_f32(
    const float* x, u32* maxima, Counters* counters, u64 rows, u64 cols, u32 height, u32 nan) {
    amax_cols(x, maxima, counters, rows, cols, height, nan);
}
