// Rows of a table by token, out[t] = table[ids[t]], and their gradients, dtable[ids[t]] += dout[t], t ascending.
// Specification: ops/embedding.rs. Forward reads 4 bytes an element and writes it; backward reads dout once, and reads and
// writes 4 bytes an element of each row of the table that has a token.
// Backward knows the tokens in the order of their ids: those of group g are order[starts[g]..starts[g + 1]], ascending,
// and a block of threads adds up a group for THREADS vectors of columns, four tokens under way at a time. An id that all of
// 8192 tokens have takes 2048 latencies, a millisecond or two; one that a twentieth has, a twentieth of that.
// budget: registers 48, spills 0
#include "types.cuh"

const u32 THREADS = 128, ROUND = 4;

template <class V, class A> __device__ void copy_row(const float* row, A* out, u32 h) {
    for (u32 i = threadIdx.x * V::N; i < h; i += THREADS * V::N) {
        Floats<V::N> from = Floats<V::N>::load(row + i);
        V to;
        for (int j = 0; j < V::N; j++) to.x[j] = from.x[j];
        to.store(out + i);
    }
}
template <class A> __device__ void embedding(const u32* ids, const float* table, A* out, u32 h) {
    const float* row = table + u64(ids[blockIdx.x]) * h;
    A* to = out + u64(blockIdx.x) * h;
    if (h % Vector<A>::N == 0) copy_row<Vector<A>>(row, to, h);
    else copy_row<Scalar<A>>(row, to, h);
}

template <class V, class A>
__device__ void add_group(const u32* tokens, u32 count, const A* dout, float* row, u32 h) {
    u32 column = (blockIdx.y * THREADS + threadIdx.x) * V::N;
    if (column >= h) return;
    Floats<V::N> sum = Floats<V::N>::load(row + column);
    u32 i = 0;
    for (; i + ROUND <= count; i += ROUND) {
        V v[ROUND];
        for (u32 k = 0; k < ROUND; k++) v[k] = V::load(dout + u64(tokens[i + k]) * h + column);
        for (u32 k = 0; k < ROUND; k++) {
            for (int j = 0; j < V::N; j++) sum.x[j] += v[k].x[j];
        }
    }
    for (; i < count; i++) {
        V v = V::load(dout + u64(tokens[i]) * h + column);
        for (int j = 0; j < V::N; j++) sum.x[j] += v.x[j];
    }
    sum.store(row + column);
}
template <class A>
__device__ void embedding_backward(const u32* ids, const u32* starts, const u32* order, const A* dout, float* dtable,
                                   u32 h) {
    u32 first = starts[blockIdx.x], count = starts[blockIdx.x + 1] - first;
    const u32* tokens = order + first;
    float* row = dtable + u64(ids[tokens[0]]) * h;
    if (h % Vector<A>::N == 0) add_group<Vector<A>>(tokens, count, dout, row, h);
    else add_group<Scalar<A>>(tokens, count, dout, row, h);
}

extern "C" __global__ void __launch_bounds__(128) embedding_bf16(
    const u32* ids, const float* table, bf16* out, u32 h) { embedding(ids, table, out, h); }
extern "C" __global__ void __launch_bounds__(128) embedding_f32(
    const u32* ids, const float* table, float* out, u32 h) { embedding(ids, table, out, h); }
extern "C" __global__ void __launch_bounds__(128) embedding_backward_bf16(
    const u32* ids, const u32* starts, const u32* order, const bf16* dout, float* dtable, u32 h) {
    embedding_backward(ids, starts, order, dout, dtable, h);
}
extern "C" __global__ void __launch_bounds__(128) embedding_backward_f32(
    const u32* ids, const u32* starts, const u32* order, const float* dout, float* dtable, u32 h) {
    embedding_backward(ids, starts, order, dout, dtable, h);
}
