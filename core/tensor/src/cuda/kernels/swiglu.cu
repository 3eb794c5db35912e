// SwiGLU: out = silu(g) * u; backward dup = dout * silu(g), dgate = dout * u * s * (1 + g * (1 - s)), s = sigmoid(g).
// Specification: ops/swiglu.rs. Forward reads two elements and writes one, backward reads three and writes two; a
// thread has a vector of 16 bytes of each.
// budget: registers 40, spills 0
#include "math.cuh"

template <class V, class A> __device__ void forward_piece(const A* gate, const A* up, A* out) {
    V g = V::load(gate), u = V::load(up);
    for (int j = 0; j < V::N; j++) g.x[j] = g.x[j] * sigmoid(g.x[j]) * u.x[j];
    g.store(out);
}

template <class V, class A>
__device__ void backward_piece(const A* dout, const A* gate, const A* up, A* dgate, A* dup) {
    V d = V::load(dout), g = V::load(gate), u = V::load(up);
    for (int j = 0; j < V::N; j++) {
        float s = sigmoid(g.x[j]), product = d.x[j] * u.x[j];
        u.x[j] = d.x[j] * (g.x[j] * s);
        g.x[j] = product * (s * fmaf(g.x[j], 1.0f - s, 1.0f));
    }
    u.store(dup);
    g.store(dgate);
}

// A thread a vector, then a thread an element that is left.
template <class A> __device__ void swiglu(const A* gate, const A* up, A* out, u64 n) {
    const int N = Vector<A>::N;
    u64 thread = thread_index(), whole = n / N, left = whole * N + (thread - whole);
    u64 at = thread < whole ? thread * N : left;
    if (thread < whole) forward_piece<Vector<A>>(gate + at, up + at, out + at);
    else if (left < n) forward_piece<Scalar<A>>(gate + at, up + at, out + at);
}

template <class A>
__device__ void swiglu_backward(const A* dout, const A* gate, const A* up, A* dgate, A* dup, u64 n) {
    const int N = Vector<A>::N;
    u64 thread = thread_index(), whole = n / N, left = whole * N + (thread - whole);
    u64 at = thread < whole ? thread * N : left;
    if (thread < whole) backward_piece<Vector<A>>(dout + at, gate + at, up + at, dgate + at, dup + at);
    else if (left < n) backward_piece<Scalar<A>>(dout + at, gate + at, up + at, dgate + at, dup + at);
}

extern "C" __global__ void __launch_bounds__(256) swiglu_bf16(
    const bf16* gate, const bf16* up, bf16* out, u64 n) { swiglu(gate, up, out, n); }
extern "C" __global__ void __launch_bounds__(256) swiglu_f32(
    const float* gate, const float* up, float* out, u64 n) { swiglu(gate, up, out, n); }
extern "C" __global__ void __launch_bounds__(256) swiglu_backward_bf16(
    const bf16* dout, const bf16* gate, const bf16* up, bf16* dgate, bf16* dup, u64 n) {
    swiglu_backward(dout, gate, up, dgate, dup, n);
}
extern "C" __global__ void __launch_bounds__(256) swiglu_backward_f32(
    const float* dout, const float* gate, const float* up, float* dgate, float* dup, u64 n) {
    swiglu_backward(dout, gate, up, dgate, dup, n);
}
