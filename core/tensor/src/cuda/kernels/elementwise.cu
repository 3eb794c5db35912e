// Element by element: residual addition and accumulation, x += y; conversion, out = x.
// Specification: ops/elementwise.rs. Each element is read once and written once; a thread has a vector of 16 bytes.
// budget: registers 24, spills 0
#include "types.cuh"

template <class V, class A> __device__ void add_piece(A* x, const A* y) {
    V a = V::load(x), b = V::load(y);
    for (int j = 0; j < V::N; j++) a.x[j] += b.x[j];
    a.store(x);
}

// A thread a vector, then a thread an element that is left.
template <class A> __device__ void add(A* x, const A* y, u64 n) {
    const int N = Vector<A>::N;
    u64 thread = thread_index(), whole = n / N, left = whole * N + (thread - whole);
    if (thread < whole) add_piece<Vector<A>>(x + thread * N, y + thread * N);
    else if (left < n) add_piece<Scalar<A>>(x + left, y + left);
}

// Eight elements a thread, either way.
template <class From, class To> __device__ void convert_piece(const float* x, To* out) {
    From to;
    for (int j = 0; j < From::N; j++) to.x[j] = x[j];
    to.store(out);
}

__device__ void widen_all(const bf16* x, float* out, u64 n) {
    u64 thread = thread_index(), whole = n / 8, left = whole * 8 + (thread - whole);
    if (thread < whole) {
        Vector<bf16> from = Vector<bf16>::load(x + thread * 8);
        convert_piece<Vector<float>>(from.x, out + thread * 8);
        convert_piece<Vector<float>>(from.x + 4, out + thread * 8 + 4);
    } else if (left < n) {
        out[left] = narrow<float>(widen(x[left]));
    }
}

__device__ void narrow_all(const float* x, bf16* out, u64 n) {
    u64 thread = thread_index(), whole = n / 8, left = whole * 8 + (thread - whole);
    if (thread < whole) convert_piece<Vector<bf16>>(Floats<8>::load(x + thread * 8).x, out + thread * 8);
    else if (left < n) out[left] = narrow<bf16>(x[left]);
}

// Every element is the one of these bits, 16 bytes at a time.
template <class W> __device__ void fill(W* x, W bits, u64 n) {
    const u64 N = 16 / sizeof(W);
    u32 word = sizeof(W) == 4 ? bits : u32(bits) << 16 | bits;
    for (u64 i = thread_index(); i < n / N; i += thread_count()) {
        reinterpret_cast<uint4*>(x)[i] = {word, word, word, word};
    }
    u64 i = n / N * N + thread_index();
    if (i < n) x[i] = bits;
}

extern "C" __global__ void __launch_bounds__(256) add_bf16(bf16* x, const bf16* y, u64 n) { add(x, y, n); }
extern "C" __global__ void __launch_bounds__(256) add_f32(float* x, const float* y, u64 n) { add(x, y, n); }
extern "C" __global__ void __launch_bounds__(256) convert_bf16(const bf16* x, float* out, u64 n) { widen_all(x, out, n); }
extern "C" __global__ void __launch_bounds__(256) convert_f32(const float* x, bf16* out, u64 n) { narrow_all(x, out, n); }
extern "C" __global__ void __launch_bounds__(256) fill_bf16(u16* x, u32 bits, u64 n) { fill(x, u16(bits), n); }
extern "C" __global__ void __launch_bounds__(256) fill_f32(u32* x, u32 bits, u64 n) { fill(x, bits, n); }
