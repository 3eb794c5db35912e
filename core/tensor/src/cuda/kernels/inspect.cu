// Looks at f32 elements: how many have these very bits; where in each stretch the largest magnitude lies, the first of
// equals; what lies at given places. Specification: inspect.rs. Reads 4 bytes an element, once; it is asked for in the
// first step of a run alone.
// budget: registers 40, spills 0
#include "types.cuh"

const u32 WARPS = 8;

extern "C" __global__ void __launch_bounds__(256) count_bits(const u32* x, u64 n, u32 bits, u64* count) {
    u32 found = 0;
#pragma unroll 4
    for (u64 i = thread_index(); i < n; i += thread_count()) found += x[i] == bits;
    for (u32 bit = 1; bit < 32; bit *= 2) found += __shfl_xor_sync(0xffffffffu, found, bit);
    if (threadIdx.x % 32 == 0 && found) atomicAdd(count, u64(found));
}

// A magnitude, and how far into the stretch it lies.
struct Largest {
    float top;
    u32 at;
    __device__ void meet(float other, u32 place) {
        if (other > top || (other == top && place < at)) top = other, at = place;
    }
};

// A block a stretch. A NaN is larger than nothing: it counts only where it is the first element, and stays then.
extern "C" __global__ void __launch_bounds__(256) largest_of_stretches(
    const float* x, u64 n, u32 stretch, u32* places) {
    __shared__ float tops[WARPS];
    __shared__ u32 at[WARPS];
    u64 first = u64(blockIdx.x) * stretch;
    u32 len = n - first < stretch ? u32(n - first) : stretch;
    Largest most = {-1.0f, 0};
#pragma unroll 8
    for (u32 i = threadIdx.x; i < len; i += WARPS * 32) most.meet(fabsf(x[first + i]), i);
    for (u32 bit = 1; bit < 32; bit *= 2) {
        float top = __shfl_xor_sync(0xffffffffu, most.top, bit);
        most.meet(top, __shfl_xor_sync(0xffffffffu, most.at, bit));
    }
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = most.top, at[threadIdx.x / 32] = most.at;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (u32 warp = 1; warp < WARPS; warp++) most.meet(tops[warp], at[warp]);
    places[blockIdx.x] = x[first] == x[first] ? most.at : 0;
}

extern "C" __global__ void __launch_bounds__(256) elements_at(const float* x, const u64* places, u32 n, float* found) {
    u64 i = thread_index();
    if (i < n) found[i] = x[places[i]];
}
