// Cross entropy over rows of n logits, `ld` apart: lse = max + ln Σ exp(x - max), loss = lse - x[target], the first x that is
// the maximum; and the gradient (softmax - onehot) * factor, with zeros from n to the end of its row.
// Specification: ops/cross_entropy.rs. Statistics read 8 bytes a logit, the gradient reads 4 and writes an element.
// Statistics have a block a row. After the maximum, fifteen warps fill one tile of shared memory with exponentials while the
// last adds up the tile before it, each lane in ascending order: n/16 dependent additions, some 6 cycles each with their
// loads, are 30 us a row of 128k at 1.7 GHz. To read such a row twice takes a multiprocessor 41 us at its share of
// 3.3 TB/s, and three rows at a time fit, so that many rows hide the chain; a lone one takes some 50 us (by count, not
// measured).
// budget: registers 40, spills 0
#include "lanes.cuh"
#include "math.cuh"

const u32 THREADS = 512, WARPS = THREADS / 32, TILE = 3840, NOWHERE = 0xffffffffu;

// The largest logit and its place, the lowest place of equals; a NaN is never it.
struct Top {
    float x;
    u32 at;
    __device__ void join(float y, u32 place) {
        bool better = (y > x) | ((y == x) & (place < at));
        x = better ? y : x;
        at = better ? place : at;
    }
    template <int N> __device__ void take(u32 i, const Floats<N>& logits) {
        for (int j = 0; j < N; j++) join(logits.x[j], i + j);
    }
};

// Exponentials of the logits less the largest, in a tile that starts with logit `first`.
struct Exponentials {
    float top;
    float* tile;
    u32 first;
    template <int N> __device__ void take(u32 i, Floats<N> x) {
        for (int j = 0; j < N; j++) x.x[j] = exp_exact(x.x[j] - top);
        x.store(tile + (i - first));
    }
};

// The first time that a row is read, or the last.
enum Time { FIRST, LAST };

template <Time time> __device__ Floats<4> four(const float* at) {
    if (time == FIRST) return Floats<4>::load(at);
    float4 last = load_last(at);
    return {last.x, last.y, last.z, last.w};
}

// Gives the logits first <= i < last of a row to `taker`, the share of one of `threads` threads; four at a time if the
// row is aligned, and as many as ROUND fours under way. The first time goes from the end to the beginning, since the last
// time finds in L2 what was read latest, and leaves nothing there in its place.
template <u32 ROUND, Time time, class T>
__device__ void each(const float* row, u32 first, u32 last, bool wide, u32 thread, u32 threads, T& taker) {
    u32 whole = wide ? last / 4 * 4 : first, step = 4 * threads, rounds = (whole - first) / (ROUND * step);
    for (u32 r = 0; r < rounds; r++) {
        u32 i = first + (time == LAST ? r : rounds - 1 - r) * ROUND * step + 4 * thread;
        Floats<4> fours[ROUND];
        for (u32 k = 0; k < ROUND; k++) fours[k] = four<time>(row + i + k * step);
        for (u32 k = 0; k < ROUND; k++) taker.take(i + k * step, fours[k]);
    }
    for (u32 i = first + rounds * ROUND * step + 4 * thread; i < whole; i += step) {
        taker.take(i, four<time>(row + i));
    }
    for (u32 i = whole + thread; i < last; i += threads) taker.take(i, Floats<1>::load(row + i));
}

extern "C" __global__ void __launch_bounds__(512, 3) statistics_f32(
    const float* logits, u64 ld, u32 n, const u32* targets, float* lse, float* loss, u32* best) {
    __shared__ float4 fours[2][TILE / 4];
    __shared__ float tops[WARPS];
    __shared__ u32 places[WARPS];
    const float* row = logits + blockIdx.x * ld;
    bool wide = ld % 4 == 0;

    Top top = {__uint_as_float(0xff800000u), NOWHERE};
    each<4, FIRST>(row, 0, n, wide, threadIdx.x, THREADS, top);
    for (u32 width = 16; width > 0; width /= 2) {
        float x = __shfl_down_sync(0xffffffffu, top.x, width, 32);
        u32 at = __shfl_down_sync(0xffffffffu, top.at, width, 32);
        top.join(x, at);
    }
    if (threadIdx.x % 32 == 0) {
        tops[threadIdx.x / 32] = top.x;
        places[threadIdx.x / 32] = top.at;
    }
    __syncthreads();
    for (u32 i = 0; i < WARPS; i++) top.join(tops[i], places[i]);

    u32 count = (n + TILE - 1) / TILE;
    float sum = 0.0f;
    for (u32 k = 0; k <= count; k++) {
        if (threadIdx.x >= 32 && k < count) {
            u32 first = k * TILE, last = min(first + TILE, n);
            Exponentials exponentials = {top.x, reinterpret_cast<float*>(fours[k % 2]), first};
            each<2, LAST>(row, first, last, wide, threadIdx.x - 32, THREADS - 32, exponentials);
        }
        if (threadIdx.x < 32 && k > 0) {
            const float* tile = reinterpret_cast<const float*>(fours[(k - 1) % 2]);
            u32 len = min(TILE, n - (k - 1) * TILE);
#pragma unroll 12
            for (u32 i = threadIdx.x % LANES; i < len; i += LANES) sum = sum + tile[i];
        }
        __syncthreads();
    }
    if (threadIdx.x >= 32) return;
    sum = tree(sum);
    if (threadIdx.x == 0) {
        float total = top.x + float(ln_exact(double(sum)));
        lse[blockIdx.x] = total;
        loss[blockIdx.x] = total - row[targets[blockIdx.x]];
        best[blockIdx.x] = top.at == NOWHERE ? 0 : top.at;
    }
}

// A thread has a vector of the row of the gradient.
template <class V, class A>
__device__ void gradient_row(const float* row, u32 n, u32 target, float lse, float factor, A* out, u32 ld) {
    u32 first = (blockIdx.x * blockDim.x + threadIdx.x) * V::N;
    if (first >= ld) return;
    V v = {};
    if (first + V::N <= n) {
        Floats<V::N> x = Floats<V::N>::load(row + first);
        for (int j = 0; j < V::N; j++) v.x[j] = x.x[j];
    } else {
        for (int j = 0; j < V::N; j++) v.x[j] = first + j < n ? row[first + j] : 0.0f;
    }
    for (int j = 0; j < V::N; j++) {
        float p = exp_exact(v.x[j] - lse);
        p = first + j == target ? p - 1.0f : p;
        v.x[j] = first + j < n ? p * factor : 0.0f;
    }
    v.store(out + first);
}
template <class A>
__device__ void gradient(const float* logits, u64 ld, u32 n, const u32* targets, const float* lse, float factor,
                         A* out, u32 out_ld) {
    const float* row = logits + blockIdx.y * ld;
    A* to = out + u64(blockIdx.y) * out_ld;
    u32 target = targets[blockIdx.y];
    float l = lse[blockIdx.y];
    bool wide = ld % 4 == 0 && out_ld % Vector<A>::N == 0;
    if (wide) gradient_row<Vector<A>>(row, n, target, l, factor, to, out_ld);
    else gradient_row<Scalar<A>>(row, n, target, l, factor, to, out_ld);
}

extern "C" __global__ void __launch_bounds__(256) gradient_bf16(
    const float* logits, u64 ld, u32 n, const u32* targets, const float* lse, float factor, bf16* out, u32 out_ld) {
    gradient(logits, ld, n, targets, lse, factor, out, out_ld);
}
extern "C" __global__ void __launch_bounds__(256) gradient_f32(
    const float* logits, u64 ld, u32 n, const u32* targets, const float* lse, float factor, float* out, u32 out_ld) {
    gradient(logits, ld, n, targets, lse, factor, out, out_ld);
}
