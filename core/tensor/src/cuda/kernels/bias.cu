// Bias: y[t] += b, b rounded to the type of y first; backward Σ_t dy[t] over each block of 64 tokens, t ascending.
// Specification: ops/elementwise.rs. Forward reads and writes y; backward reads dy and writes a float for 64 elements.
// A block of threads has a row forward, 64 rows of its columns backward; vectors of 16 bytes where the width allows.
// budget: registers 40, spills 0
#include "types.cuh"

const u32 THREADS = 128, TOKEN_BLOCK = 64;

template <class V, class A> __device__ void bias_row(const float* bias, A* y, u32 width) {
    A* row = y + u64(blockIdx.x) * width;
    for (u32 i = threadIdx.x * V::N; i < width; i += THREADS * V::N) {
        V v = V::load(row + i);
        Floats<V::N> b = Floats<V::N>::load(bias + i);
        for (int j = 0; j < V::N; j++) v.x[j] += widen(narrow<A>(b.x[j]));
        v.store(row + i);
    }
}
template <class A> __device__ void bias(const float* bias, A* y, u32 width) {
    if (width % Vector<A>::N == 0) bias_row<Vector<A>>(bias, y, width);
    else bias_row<Scalar<A>>(bias, y, width);
}

template <class V, class A> __device__ void sum_block(const A* dy, float* partial, u32 tokens, u32 width) {
    u32 column = (blockIdx.y * THREADS + threadIdx.x) * V::N;
    if (column >= width) return;
    u32 first = blockIdx.x * TOKEN_BLOCK, last = min(first + TOKEN_BLOCK, tokens);
    Floats<V::N> sum = {};
#pragma unroll 4
    for (u32 t = first; t < last; t++) {
        V v = V::load(dy + u64(t) * width + column);
        for (int j = 0; j < V::N; j++) sum.x[j] += v.x[j];
    }
    sum.store(partial + u64(blockIdx.x) * width + column);
}
template <class A> __device__ void bias_backward(const A* dy, float* partial, u32 tokens, u32 width) {
    if (width % Vector<A>::N == 0) sum_block<Vector<A>>(dy, partial, tokens, width);
    else sum_block<Scalar<A>>(dy, partial, tokens, width);
}

extern "C" __global__ void __launch_bounds__(128) bias_bf16(const float* b, bf16* y, u32 width) { bias(b, y, width); }
extern "C" __global__ void __launch_bounds__(128) bias_f32(const float* b, float* y, u32 width) { bias(b, y, width); }
extern "C" __global__ void __launch_bounds__(128) bias_backward_bf16(
    const bf16* dy, float* partial, u32 tokens, u32 width) { bias_backward(dy, partial, tokens, width); }
extern "C" __global__ void __launch_bounds__(128) bias_backward_f32(
    const float* dy, float* partial, u32 tokens, u32 width) { bias_backward(dy, partial, tokens, width); }
