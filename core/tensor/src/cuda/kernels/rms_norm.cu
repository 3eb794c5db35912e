// RMSNorm over rows of h: y = x * rstd * w, rstd = (mean(x^2) + eps)^-1/2; backward dx += rstd * w * dy - x * rstd^3 / h *
// Σ(w * dy * x), and Σ_t dy * x * rstd over each block of 64 tokens, t ascending.
// Specification: ops/rms_norm.rs. Forward reads x once and writes y; dx reads dy, x and dx once and writes dx; dweight reads
// dy and x.
// A block of threads has a row, and keeps it in shared memory: rows come in and go out 16 bytes a thread, each is read
// once, and one warp adds in the order of the lanes, h/16 steps in which the other blocks of the multiprocessor keep its
// memory busy. Blocks that follow each other add on different quarters of it.
// budget: registers 48, spills 0
#include "lanes.cuh"

const u32 THREADS = 128, TOKEN_BLOCK = 64;

// Whether this thread's warp is the one that adds.
__device__ inline bool adds() { return threadIdx.x / 32 == blockIdx.x % (THREADS / 32); }

template <class A> __device__ void copy_row(A* to, const A* from, u32 h) {
    const u32 N = Vector<A>::N;
    if (h % N == 0) {
#pragma unroll 4
        for (u32 i = threadIdx.x; i < h / N; i += THREADS) {
            reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
        }
    } else {
#pragma unroll 4
        for (u32 i = threadIdx.x; i < h; i += THREADS) to[i] = from[i];
    }
}

template <class V, class A>
__device__ void scale_row(const A* row, float r, const float* weight, A* y, u32 h) {
    for (u32 i = threadIdx.x * V::N; i < h; i += THREADS * V::N) {
        V v = V::load(row + i);
        Floats<V::N> w = Floats<V::N>::load(weight + i);
        for (int j = 0; j < V::N; j++) v.x[j] = v.x[j] * r * w.x[j];
        v.store(y + i);
    }
}

template <class A> __device__ void rms_norm(const A* x, const float* weight, float eps, A* y, float* rstd, u32 h) {
    __shared__ float inverse;
    A* row = reinterpret_cast<A*>(dynamic_shared());
    u64 at = u64(blockIdx.x) * h;
    copy_row(row, x + at, h);
    __syncthreads();
    if (adds()) {
        float squares = lane_sum(h, [&](u32 i, float sum) { return fmaf(widen(row[i]), widen(row[i]), sum); });
        float r = 1.0f / sqrtf(squares / float(h) + eps);
        if (threadIdx.x % 32 == 0) inverse = rstd[blockIdx.x] = r;
    }
    __syncthreads();
    if (h % Vector<A>::N == 0) scale_row<Vector<A>>(row, inverse, weight, y + at, h);
    else scale_row<Scalar<A>>(row, inverse, weight, y + at, h);
}

template <class V, class A>
__device__ void dx_row(const A* dy, const A* x, float r, float c, const float* weight, A* dx, u32 h) {
    for (u32 i = threadIdx.x * V::N; i < h; i += THREADS * V::N) {
        V g = V::load(dy + i), v = V::load(x + i), d = V::load(dx + i);
        Floats<V::N> w = Floats<V::N>::load(weight + i);
        for (int j = 0; j < V::N; j++) d.x[j] = d.x[j] + fmaf(-c, v.x[j], g.x[j] * w.x[j] * r);
        d.store(dx + i);
    }
}

template <class A>
__device__ void rms_norm_dx(const A* dy, const A* x, const float* weight, const float* rstd, A* dx, u32 h) {
    __shared__ float factor;
    A *dy_row = reinterpret_cast<A*>(dynamic_shared()), *x_row = dy_row + h;
    u64 at = u64(blockIdx.x) * h;
    copy_row(dy_row, dy + at, h);
    copy_row(x_row, x + at, h);
    float r = rstd[blockIdx.x];
    __syncthreads();
    if (adds()) {
        float dot = lane_sum(h, [&](u32 i, float sum) {
            return fmaf(widen(dy_row[i]) * weight[i], widen(x_row[i]), sum);
        });
        if (threadIdx.x % 32 == 0) factor = dot * r * r * r / float(h);
    }
    __syncthreads();
    if (h % Vector<A>::N == 0) dx_row<Vector<A>>(dy_row, x_row, r, factor, weight, dx + at, h);
    else dx_row<Scalar<A>>(dy_row, x_row, r, factor, weight, dx + at, h);
}

// A block has 64 tokens and THREADS vectors of columns.
template <class V, class A>
__device__ void dweight_block(const A* dy, const A* x, const float* rstd, float* partial, u32 tokens, u32 h) {
    u32 column = (blockIdx.y * THREADS + threadIdx.x) * V::N;
    if (column >= h) return;
    u32 first = blockIdx.x * TOKEN_BLOCK, last = min(first + TOKEN_BLOCK, tokens);
    Floats<V::N> sum = {};
#pragma unroll 4
    for (u32 t = first; t < last; t++) {
        u64 at = u64(t) * h + column;
        V g = V::load(dy + at), v = V::load(x + at);
        float r = rstd[t];
        for (int j = 0; j < V::N; j++) sum.x[j] = fmaf(g.x[j], v.x[j] * r, sum.x[j]);
    }
    sum.store(partial + u64(blockIdx.x) * h + column);
}
template <class A>
__device__ void rms_norm_dweight(const A* dy, const A* x, const float* rstd, float* partial, u32 tokens, u32 h) {
    if (h % Vector<A>::N == 0) dweight_block<Vector<A>>(dy, x, rstd, partial, tokens, h);
    else dweight_block<Scalar<A>>(dy, x, rstd, partial, tokens, h);
}

extern "C" __global__ void __launch_bounds__(128) rms_norm_bf16(
    const bf16* x, const float* weight, float eps, bf16* y, float* rstd, u32 h) {
    rms_norm(x, weight, eps, y, rstd, h);
}
extern "C" __global__ void __launch_bounds__(128) rms_norm_f32(
    const float* x, const float* weight, float eps, float* y, float* rstd, u32 h) {
    rms_norm(x, weight, eps, y, rstd, h);
}
extern "C" __global__ void __launch_bounds__(128) rms_norm_dx_bf16(
    const bf16* dy, const bf16* x, const float* weight, const float* rstd, bf16* dx, u32 h) {
    rms_norm_dx(dy, x, weight, rstd, dx, h);
}
extern "C" __global__ void __launch_bounds__(128) rms_norm_dx_f32(
    const float* dy, const float* x, const float* weight, const float* rstd, float* dx, u32 h) {
    rms_norm_dx(dy, x, weight, rstd, dx, h);
}
extern "C" __global__ void __launch_bounds__(128) rms_norm_dweight_bf16(
    const bf16* dy, const bf16* x, const float* rstd, float* partial, u32 tokens, u32 h) {
    rms_norm_dweight(dy, x, rstd, partial, tokens, h);
}
extern "C" __global__ void __launch_bounds__(128) rms_norm_dweight_f32(
    const float* dy, const float* x, const float* rstd, float* partial, u32 tokens, u32 h) {
    rms_norm_dweight(dy, x, rstd, partial, tokens, h);
}
