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
