// Sums along a row in the CPU's order: 16 partial sums, element i in sum i mod 16, ascending, then a fixed tree.
// Specification: fp8flow-tensor's `lanes`. A half-warp works on a row, a thread a partial sum.
#pragma once

#include "types.cuh"

const int LANES = 16;

// The sum of the half-warp's 16 values by the tree, in every one of its threads. Lane j of a half takes lane j + width
// at each level; all 32 threads of the warp come along.
__device__ inline float tree(float sum) {
    u32 lane = threadIdx.x % LANES;
    for (u32 width = LANES / 2; width > 0; width /= 2) {
        float other = __shfl_down_sync(0xffffffffu, sum, width, LANES);
        if (lane < width) sum += other;
    }
    return __shfl_sync(0xffffffffu, sum, 0, LANES);
}

// The sum of n terms in that order: f(i, sum) adds term i. One warp calls it; both halves do the same. Eight terms a
// round without a branch between them, so that what they need is on its way together.
template <class F> __device__ inline float lane_sum(u32 n, F f) {
    const u32 ROUND = 8 * LANES;
    u32 i = threadIdx.x % LANES, whole = n / ROUND * ROUND;
    float sum = 0.0f;
    for (; i < whole; i += ROUND) {
#pragma unroll
        for (u32 j = 0; j < ROUND; j += LANES) sum = f(i + j, sum);
    }
    for (; i < n; i += LANES) sum = f(i, sum);
    return tree(sum);
}
