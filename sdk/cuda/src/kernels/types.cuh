// Elements as f32 arithmetic sees them: widened exactly, rounded once, at the store.
// Specification: fp8flow-kernels' `Element`.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#include "ptx.cuh"

struct bf16 {
    u16 bits;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

// Every NaN becomes the positive quiet one.
template <class A> __device__ inline A narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x == x ? x : __uint_as_float(0x7fc00000u); }
template <> __device__ inline bf16 narrow<bf16>(float x) { return bf16{x == x ? bf16_bits(x) : u16(0x7fc0)}; }

// The two numbers of a word of bf16, the one at the lower address first.
__device__ inline float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ inline float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Two numbers as a word of bf16.
__device__ inline u32 pair(float low, float high) {
    return u32(narrow<bf16>(low).bits) | u32(narrow<bf16>(high).bits) << 16;
}

// 16 bytes of elements in registers: 8 bf16 or 4 f32.
template <class A> struct Vector;
template <> struct Vector<bf16> {
    static const int N = 8;
    float x[N];
    __device__ static Vector load(const bf16* at) {
        uint4 words = *reinterpret_cast<const uint4*>(at);
        return {low(words.x), high(words.x), low(words.y), high(words.y),
                low(words.z), high(words.z), low(words.w), high(words.w)};
    }
    __device__ void store(bf16* at) const {
        uint4 words = {pair(x[0], x[1]), pair(x[2], x[3]), pair(x[4], x[5]), pair(x[6], x[7])};
        *reinterpret_cast<uint4*>(at) = words;
    }
};
template <> struct Vector<float> {
    static const int N = 4;
    float x[N];
    __device__ static Vector load(const float* at) {
        float4 words = *reinterpret_cast<const float4*>(at);
        return {words.x, words.y, words.z, words.w};
    }
    __device__ void store(float* at) const {
        float4 words = {narrow<float>(x[0]), narrow<float>(x[1]), narrow<float>(x[2]), narrow<float>(x[3])};
        *reinterpret_cast<float4*>(at) = words;
    }
};

// One element in a register, where a width is no multiple of a vector's.
template <class A> struct Scalar {
    static const int N = 1;
    float x[N];
    __device__ static Scalar load(const A* at) { return {{widen(*at)}}; }
    __device__ void store(A* at) const { *at = narrow<A>(x[0]); }
};

// N floats with the bits that they have, 16 bytes at a time if they come in fours.
template <int COUNT> struct Floats {
    static const int N = COUNT;
    float x[N];
    __device__ static Floats load(const float* at) {
        Floats floats;
        if constexpr (N % 4 == 0) {
            for (int i = 0; i < N; i += 4) {
                float4 four = *reinterpret_cast<const float4*>(at + i);
                floats.x[i] = four.x, floats.x[i + 1] = four.y, floats.x[i + 2] = four.z, floats.x[i + 3] = four.w;
            }
        } else {
            for (int i = 0; i < N; i++) floats.x[i] = at[i];
        }
        return floats;
    }
    __device__ void store(float* at) const {
        if constexpr (N % 4 == 0) {
            for (int i = 0; i < N; i += 4) {
                float4 four = {x[i], x[i + 1], x[i + 2], x[i + 3]};
                *reinterpret_cast<float4*>(at + i) = four;
            }
        } else {
            for (int i = 0; i < N; i++) at[i] = x[i];
        }
    }
};

// This thread's number in the grid, and how many there are, along x.
__device__ inline u64 thread_index() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline u64 thread_count() { return u64(gridDim.x) * blockDim.x; }
