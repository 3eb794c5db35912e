// Words of all attention kernels, whatever their products are made by.
// Specification: fp8flow-tensor's `ops/attention`.
#pragma once

#include "types.cuh"

const float LOG2_E = 1.44269504088896340736f;
const float LN_2 = 0.69314718055994530942f;

// A tile of a sequence: the micro-batch's index of the sequence's first token, its tokens, and the first of the tile.
struct Work {
    u32 start, len, first;
};

__device__ inline u32 least(u32 a, u32 b) { return a < b ? a : b; }
__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
