// Rotary position embedding in place: (a, b) = (a * c - b * s, b * c + a * s) for elements i and i + head_dim / 2 of each
// head, c and s the cosine and sine of the token's position, s times `sign`.
// Specification: ops/rope.rs. Reads and writes each element once; the table's row serves all heads of a token from L1.
// A block of threads has a token; a thread turns two vectors of 16 bytes where head_dim / 2 allows.
// budget: registers 40, spills 0
#include "types.cuh"

template <class V, class A>
__device__ void turn(A* row, const float* cos, const float* sin, float sign, u32 heads, u32 head_dim) {
    u32 half = head_dim / 2, pieces = half / V::N;
    for (u32 i = threadIdx.x; i < heads * pieces; i += blockDim.x) {
        u32 head = i / pieces, column = (i - head * pieces) * V::N;
        A *low = row + head * head_dim + column, *high = low + half;
        V a = V::load(low), b = V::load(high);
        Floats<V::N> c = Floats<V::N>::load(cos + column), s = Floats<V::N>::load(sin + column);
        for (int j = 0; j < V::N; j++) {
            float x = a.x[j], y = b.x[j], turned = s.x[j] * sign;
            a.x[j] = x * c.x[j] - y * turned;
            b.x[j] = y * c.x[j] + x * turned;
        }
        a.store(low);
        b.store(high);
    }
}

template <class A>
__device__ void rope(A* x, const u32* positions, const float* cos, const float* sin, float sign, u32 heads,
                     u32 head_dim) {
    u64 at = u64(positions[blockIdx.x]) * (head_dim / 2);
    A* row = x + u64(blockIdx.x) * heads * head_dim;
    bool wide = head_dim % (2 * Vector<A>::N) == 0;
    if (wide) turn<Vector<A>>(row, cos + at, sin + at, sign, heads, head_dim);
    else turn<Scalar<A>>(row, cos + at, sin + at, sign, heads, head_dim);
}

extern "C" __global__ void __launch_bounds__(128) rope_bf16(
    bf16* x, const u32* positions, const float* cos, const float* sin, float sign, u32 heads, u32 head_dim) {
    rope(x, positions, cos, sin, sign, heads, head_dim);
}
extern "C" __global__ void __launch_bounds__(128) rope_f32(
    float* x, const u32* positions, const float* cos, const float* sin, float sign, u32 heads, u32 head_dim) {
    rope(x, positions, cos, sin, sign, heads, head_dim);
}
