// Scales and their reciprocals from many maxima at once: what a recipe with delayed scales does after a step.
// Specification: fp8flow-kernels' `ScaleRule::scale`. Reads 4 bytes a maximum, writes 4 for each of the two that is wanted.
// budget: registers 32, spills 0
#include "fp8.cuh"

template <class F> __device__ void scales(const float* maxima, float* scales, float* factors, u64 n, u32 rule) {
    for (u64 i = thread_index(); i < n; i += thread_count()) {
        float scale = scale_of<F>(maxima[i], rule);
        if (scales) scales[i] = scale;
        if (factors) factors[i] = 1.0f / scale;
    }
}

extern "C" __global__ void __launch_bounds__(256) scales_e4m3(
    const float* maxima, float* made, float* factors, u64 n, u32 rule) { scales<E4m3>(maxima, made, factors, n, rule); }
extern "C" __global__ void __launch_bounds__(256) scales_e5m2(
    const float* maxima, float* made, float* factors, u64 n, u32 rule) { scales<E5m2>(maxima, made, factors, n, rule); }

// out[i] = x[0]: one factor as one for each row, where a product takes no other kind.
extern "C" __global__ void __launch_bounds__(256) repeat_f32(const float* x, float* out, u64 n) {
    u64 i = thread_index();
    if (i < n) out[i] = x[0];
}
