// One step of AdamW: m += (1 - beta1) * (g - m), v = v * beta2 + (1 - beta2) * g^2, w = w * keep - step * m / (sqrt(v) /
// root + eps), with g the gradient times `scale` and constants that the host makes.
// Specification: ops/adamw.rs. Reads 16 bytes a parameter, writes 12; a thread has four parameters.
// budget: registers 40, spills 0
#include "types.cuh"

struct Step {
    float scale, gain1, beta2, gain2, root, eps, keep, step;
};

template <int N>
__device__ void adamw_piece(const Step& step, float* weight, const float* grad, float* first, float* second) {
    Floats<N> w = Floats<N>::load(weight), g = Floats<N>::load(grad);
    Floats<N> m = Floats<N>::load(first), v = Floats<N>::load(second);
    for (int j = 0; j < N; j++) {
        float x = g.x[j] * step.scale;
        m.x[j] = m.x[j] + step.gain1 * (x - m.x[j]);
        v.x[j] = v.x[j] * step.beta2 + step.gain2 * (x * x);
        float denominator = sqrtf(v.x[j]) / step.root + step.eps;
        w.x[j] = w.x[j] * step.keep - step.step * (m.x[j] / denominator);
    }
    w.store(weight);
    m.store(first);
    v.store(second);
}

// A thread a vector, then a thread an element that is left.
extern "C" __global__ void __launch_bounds__(256) adamw_f32(
    float* weight, const float* grad, float* m, float* v, u64 n, float scale, float gain1, float beta2, float gain2,
    float root, float eps, float keep, float step) {
    Step constants = {scale, gain1, beta2, gain2, root, eps, keep, step};
    u64 thread = thread_index(), whole = n / 4, left = whole * 4 + (thread - whole);
    u64 at = thread < whole ? thread * 4 : left;
    if (thread < whole) adamw_piece<4>(constants, weight + at, grad + at, m + at, v + at);
    else if (left < n) adamw_piece<1>(constants, weight + at, grad + at, m + at, v + at);
}
