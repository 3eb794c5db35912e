// Elementary functions with the CPU's bits: exactly rounded operations only, in the order of fp8flow-kernels' `math`.
#pragma once

#include "types.cuh"

// e^x, within 2 units in the last place; infinity above 88.73, 0 below -103.97, NaN for NaN.
__device__ inline float exp_exact(float x) {
    const float round = 12582912.0f;
    float clamped = x > 89.0f ? 89.0f : x;
    clamped = clamped < -104.5f ? -104.5f : clamped;
    float shifted = fmaf(clamped, 1.44269504088896340736f, round);
    float n = shifted - round;
    float r = fmaf(n, -0.693359375f, clamped);
    r = fmaf(n, 2.1219444e-4f, r);
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p * r, r, r) + 1.0f;
    i32 whole = i32(__float_as_uint(shifted) - __float_as_uint(round));
    i32 half = whole >> 1;
    float y = p * __uint_as_float(u32(half + 127) << 23) * __uint_as_float(u32(whole - half + 127) << 23);
    return x == x ? y : x;
}

// 1 / (1 + e^-x).
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + exp_exact(-x)); }

// ln x in f64, within 1e-15 relative; -infinity for 0, NaN below 0.
__device__ inline double ln_exact(double x) {
    const double infinity = __longlong_as_double(0x7ff0000000000000ll);
    if (!(x >= 0.0)) return __longlong_as_double(0x7ff8000000000000ll);
    if (x == 0.0) return -infinity;
    if (x == infinity) return x;
    double exponent = 0.0;
    if (x < 2.2250738585072014e-308) {
        x = x * 18014398509481984.0;
        exponent = -54.0;
    }
    i64 bits = __double_as_longlong(x);
    exponent = double((bits >> 52) - 1023) + exponent;
    double m = __longlong_as_double((bits & 0x000fffffffffffffll) | 0x3ff0000000000000ll);
    if (m > 1.41421356237309504880) {
        m *= 0.5;
        exponent += 1.0;
    }
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double p = 1.0 / 21.0;
    for (int odd = 19; odd >= 3; odd -= 2) p = p * z + 1.0 / double(odd);
    return exponent * 0.6931471803691238 + (2.0 * s + (2.0 * s * z * p + exponent * 1.9082149292705877e-10));
}
