// Element by element: residual addition, conversion, accumulation.
// Specification: ops/elementwise.rs. Each element is read once and written once.
// budget: registers 32, spills 0
#include "types.cuh"

// x += y, over n elements.
template <class A> __device__ void add(A* x, const A* y, u64 n) {
    const int N = Vector<A>::N;
    u64 whole = n / N;
    for (u64 i = thread_index(); i < whole; i += thread_count()) {
        Vector<A> a = Vector<A>::load(x + i * N), b = Vector<A>::load(y + i * N);
        for (int j = 0; j < N; j++) a.x[j] += b.x[j];
        a.store(x + i * N);
    }
    u64 i = whole * N + thread_index();
    if (i < n) x[i] = narrow<A>(widen(x[i]) + widen(y[i]));
}

extern "C" __global__ void __launch_bounds__(256) add_bf16(bf16* x, const bf16* y, u64 n) { add(x, y, n); }
extern "C" __global__ void __launch_bounds__(256) add_f32(float* x, const float* y, u64 n) { add(x, y, n); }
