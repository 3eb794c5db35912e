// The two FP8 formats, and the rules from an absolute maximum to a scale.
// Specification: fp8flow-kernels' `Fp8` and `ScaleRule`.
#pragma once

#include "types.cuh"

// The code nearest to x, ties to even, saturating; NaN gives 0x7f.
struct E4m3 {
    static const u32 MANTISSA = 3;
    __device__ static float max() { return 448.0f; }
    // Half of the least number: what is no larger has the code of zero.
    __device__ static float half_least() { return 0.0009765625f; }
    __device__ static u16 encode(float low, float high) { return e4m3x2_bits(low, high); }
    __device__ static u8 encode(float x) { return u8(e4m3x2_bits(x, 0.0f)); }
};
struct E5m2 {
    static const u32 MANTISSA = 2;
    __device__ static float max() { return 57344.0f; }
    __device__ static float half_least() { return 0.00000762939453125f; }
    __device__ static u16 encode(float low, float high) { return e5m2x2_bits(low, high); }
    __device__ static u8 encode(float x) { return u8(e5m2x2_bits(x, 0.0f)); }
};

// Numbers of the rules, as `ScaleRule::ALL` counts them.
enum Rule { LINEAR = 0, POWER_OF_TWO = 1, FINITE_LINEAR = 2, FINITE_POWER_OF_TWO = 3 };

// Whether a NaN is the maximum, or is passed over.
__device__ inline bool nan_wins(u32 rule) { return rule <= POWER_OF_TWO; }

// The factor s with q = saturate(x * s).
template <class F> __device__ inline float scale_of(float amax, u32 rule) {
    float scale;
    if (rule <= POWER_OF_TWO) {
        // The CPU rounds a quotient of doubles, which is the quotient of floats: 53 bits are at least 2 * 24 + 2.
        // 1e-12f is the largest float below the double 1e-12.
        scale = amax <= 1e-12f ? float(double(F::max()) / 1e-12) : F::max() / amax;
    } else if (amax == 0.0f || !(fabsf(amax) < __uint_as_float(0x7f800000u))) {
        scale = 1.0f;
    } else {
        scale = fminf(F::max() / amax, 3.402823466e+38f);
    }
    bool power = rule == POWER_OF_TWO || rule == FINITE_POWER_OF_TWO;
    return power && scale == scale ? __uint_as_float(__float_as_uint(scale) & 0x7f800000u) : scale;
}
