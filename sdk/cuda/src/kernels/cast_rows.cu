// Casts with a scale a row: codes[m,k] = encode(x[m,k] * s[m]), factors[m] = 1 / s[m], where the rule makes s[m] from
// max |x[m,:]|. Specification: fp8flow-kernels' `cast_rows`. A block takes a row. Reads 2 or 4 bytes an element, writes
// 1, and 4 a row. Up to 4096 columns wait in registers for the scale; of wider rows the rest is read again, from L1.
// Expected: 85 % of copy bandwidth from 2048 columns on; below, most threads have little to do.
// budget: registers 56, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
#include "cast.cuh"

const u32 THREADS = 128;
const u32 HELD = 4;

template <class A> __device__ inline u32 greatest(u32 top, const Eight<A>& eight, bool nan) {
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float x[4];
        eight.four(h, x);
        for (u32 j = 0; j < 4; j++) top = greater(top, x[j], nan);
    }
    return top;
}

template <class F, class A> __device__ inline void put(u8* codes, const Eight<A>& eight, float4 scales) {
    float first[4], second[4];
    eight.four(0, first), eight.four(1, second);
    *reinterpret_cast<uint2*>(codes) = {encode<F>(first, scales), encode<F>(second, scales)};
}

template <class F, class A> __device__ inline void see(Lost& lost, const Eight<A>& eight, float4 scales) {
    float first[4], second[4];
    eight.four(0, first), eight.four(1, second);
    lost.see<F>(first, scales), lost.see<F>(second, scales);
}

// As many blocks as codes have rows; those after the last row of x are zeros.
template <class A, class F> __device__ void cast_rows(const A* x, u8* codes, float* factors, Counters* counters,
                                                      u64 rows, u64 cols, u32 rule, u32 count) {
    __shared__ u32 tops[32];
    u64 row = blockIdx.x;
    u32 vectors = u32(cols / 8);
    x += row * cols;
    codes += row * cols;
    if (row >= rows) {
        for (u32 v = threadIdx.x; v < vectors; v += THREADS) *reinterpret_cast<uint2*>(codes + v * 8) = {0, 0};
        return;
    }
    bool nan = nan_wins(rule);
    u32 top = 0;
    Eight<A> held[HELD];
#pragma unroll
    for (u32 i = 0; i < HELD; i++) {
        u32 v = threadIdx.x + i * THREADS;
        held[i] = v < vectors ? Eight<A>::load(x + v * 8) : Eight<A>::zeros();
    }
#pragma unroll
    for (u32 i = 0; i < HELD; i++) top = greatest(top, held[i], nan);
    u32 first = threadIdx.x + HELD * THREADS;
    for (u32 v = first; v < vectors; v += THREADS) top = greatest(top, Eight<A>::load(x + v * 8), nan);
    top = largest_of_block(top, tops);
    float scale = scale_of<F>(__uint_as_float(top), rule);
    if (threadIdx.x == 0) {
        factors[row] = 1.0f / scale;
        if (top >= INFINITE) atomicAdd(&counters->non_finite, 1ull);
    }
    float4 scales = {scale, scale, scale, scale};
    if (count) {
        Lost lost = {};
#pragma unroll
        for (u32 i = 0; i < HELD; i++) see<F>(lost, held[i], scales);
        for (u32 v = first; v < vectors; v += THREADS) see<F>(lost, Eight<A>::load(x + v * 8), scales);
        lost.report(counters);
    }
#pragma unroll
    for (u32 i = 0; i < HELD; i++) {
        u32 v = threadIdx.x + i * THREADS;
        if (v < vectors) put<F>(codes + v * 8, held[i], scales);
    }
    for (u32 v = first; v < vectors; v += THREADS) put<F>(codes + v * 8, Eight<A>::load(x + v * 8), scales);
}

extern "C" __global__ void __launch_bounds__(128) cast_rows_bf16_e4m3(
    const bf16* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_rows<bf16, E4m3>(x, codes, factors, counters, rows, cols, rule, count);
}
extern "C" __global__ void __launch_bounds__(128) cast_rows_bf16_e5m2(
    const bf16* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_rows<bf16, E5m2>(x, codes, factors, counters, rows, cols, rule, count);
}
extern "C" __global__ void __launch_bounds__(128) cast_rows_f32_e4m3(
    const float* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_rows<float, E4m3>(x, codes, factors, counters, rows, cols, rule, count);
}
extern "C" __global__ void __launch_bounds__(128) cast_rows_f32_e5m2(
    const float* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 rule, u32 count) {
    cast_rows<float, E5m2>(x, codes, factors, counters, rows, cols, rule, count);
}
