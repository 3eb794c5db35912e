// Casts with a scale a row: codes[m,k] = encode(x[m,k] * s[m]), factors[m] = 1 / s[m], where the rule makes s[m] from
// max |x[m,:]|. Specification: fp8flow-kernels' `cast_rows`. A row takes a warp, or a block of up to 512 threads. Reads
// 2 or 4 bytes an element, writes 1, and 4 a row. Up to 16384 columns wait in registers for the scale; of wider rows the
// rest is read again, from L2. Expected: 85 % of copy bandwidth.
// budget: registers 64, spills 0
// expects sm_89: F2FP.SATFINITE.E4M3
// expects sm_90a: F2FP.SATFINITE.E4M3
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
#include "cast.cuh"

// Vectors of a row that wait in a thread.
const u32 HELD = 4;

template <class A, bool NAN> __device__ inline u32 greatest(u32 top, const Eight<A>& eight) {
    for (u32 word : eight.words) top = higher<A, NAN>(top, word);
    return top;
}

// This thread's maximum: of what it holds, and of vectors from `rest` on.
template <class A, bool NAN>
__device__ inline u32 greatest(const Eight<A> (&held)[HELD], const A* x, u32 rest, u32 vectors, u32 share) {
    u32 top = 0;
#pragma unroll
    for (u32 i = 0; i < HELD; i++) top = greatest<A, NAN>(top, held[i]);
    for (u32 v = rest; v < vectors; v += share) top = greatest<A, NAN>(top, Eight<A>::load(x + v * 8));
    return top_of<A>(top);
}

template <class F, class A> __device__ inline void see(Lost& lost, const Eight<A>& eight, float4 scales) {
    float first[4], second[4];
    eight.four(0, first), eight.four(1, second);
    lost.see<F>(first, scales), lost.see<F>(second, scales);
}

// `share` threads take a row: the 32 of a warp, or all of a block. Codes after the last row of x are zeros.
template <class A, class F> __device__ void cast_rows(const A* x, u8* codes, float* factors, Counters* counters,
                                                      u64 rows, u64 cols, u32 share, u32 rule, u32 count) {
    __shared__ u32 tops[32];
    u64 row = u64(last_first()) * (blockDim.x / share) + threadIdx.x / share;
    if (row >= padded(rows)) return;
    u32 vectors = u32(cols / 8), first = threadIdx.x % share, rest = first + HELD * share;
    x += row * cols;
    codes += row * cols;
    if (row >= rows) {
        for (u32 v = first; v < vectors; v += share) *reinterpret_cast<uint2*>(codes + v * 8) = {0, 0};
        return;
    }
    Eight<A> held[HELD];
#pragma unroll
    for (u32 i = 0; i < HELD; i++) {
        u32 v = first + i * share;
        held[i] = v < vectors ? Eight<A>::load(x + v * 8) : Eight<A>::zeros();
    }
    u32 top = nan_wins(rule) ? greatest<A, true>(held, x, rest, vectors, share)
                             : greatest<A, false>(held, x, rest, vectors, share);
    top = share == 32 ? largest_of(top, 1, 16) : largest_of_block(top, tops);
    float scale = scale_of<F>(__uint_as_float(top), rule);
    if (first == 0) {
        factors[row] = 1.0f / scale;
        if (top >= INFINITE) atomicAdd(&counters->non_finite, 1ull);
    }
    if (count) {
        float4 scales = {scale, scale, scale, scale};
        Lost lost = {};
#pragma unroll
        for (u32 i = 0; i < HELD; i++) see<F>(lost, held[i], scales);
        for (u32 v = rest; v < vectors; v += share) see<F>(lost, Eight<A>::load(x + v * 8), scales);
        lost.report(counters);
    }
#pragma unroll
    for (u32 i = 0; i < HELD; i++) {
        u32 v = first + i * share;
        if (v < vectors) *reinterpret_cast<uint2*>(codes + v * 8) = encode<F>(held[i], scale);
    }
    for (u32 v = rest; v < vectors; v += share) {
        *reinterpret_cast<uint2*>(codes + v * 8) = encode<F>(Eight<A>::load(x + v * 8), scale);
    }
}

extern "C" __global__ void __launch_bounds__(512, 3) cast_rows_bf16_e4m3(
    const bf16* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 share, u32 rule, u32 count) {
    cast_rows<bf16, E4m3>(x, codes, factors, counters, rows, cols, share, rule, count);
}
extern "C" __global__ void __launch_bounds__(512, 3) cast_rows_bf16_e5m2(
    const bf16* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 share, u32 rule, u32 count) {
    cast_rows<bf16, E5m2>(x, codes, factors, counters, rows, cols, share, rule, count);
}
extern "C" __global__ void __launch_bounds__(512, 2) cast_rows_f32_e4m3(
    const float* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 share, u32 rule, u32 count) {
    cast_rows<float, E4m3>(x, codes, factors, counters, rows, cols, share, rule, count);
}
extern "C" __global__ void __launch_bounds__(512, 2) cast_rows_f32_e5m2(
    const float* x, u8* codes, float* factors, Counters* counters, u64 rows, u64 cols, u32 share, u32 rule, u32 count) {
    cast_rows<float, E5m2>(x, codes, factors, counters, rows, cols, share, rule, count);
}
