// Rows by number: gather, out[i] = x[rows[i]]; scatter, out[rows[i]] = x[i]. Bits as they are.
// Specification: the rows with a target in ops/cross_entropy.rs. Each element is read once and written once; a block of
// threads has a row, vectors of 16 bytes where the width allows.
// budget: registers 24, spills 0
#include "types.cuh"

template <class A> __device__ void copy(const A* from, A* to, u32 width) {
    const u32 N = Vector<A>::N;
    if (width % N == 0) {
        for (u32 i = threadIdx.x; i < width / N; i += blockDim.x) {
            reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
        }
    } else {
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
    }
}
template <class A> __device__ void gather(const A* x, const u32* rows, A* out, u32 width) {
    copy(x + u64(rows[blockIdx.x]) * width, out + u64(blockIdx.x) * width, width);
}
template <class A> __device__ void scatter(const A* x, const u32* rows, A* out, u32 width) {
    copy(x + u64(blockIdx.x) * width, out + u64(rows[blockIdx.x]) * width, width);
}

extern "C" __global__ void __launch_bounds__(128) gather_bf16(
    const bf16* x, const u32* rows, bf16* out, u32 width) { gather(x, rows, out, width); }
extern "C" __global__ void __launch_bounds__(128) gather_f32(
    const float* x, const u32* rows, float* out, u32 width) { gather(x, rows, out, width); }
extern "C" __global__ void __launch_bounds__(128) scatter_bf16(
    const bf16* x, const u32* rows, bf16* out, u32 width) { scatter(x, rows, out, width); }
extern "C" __global__ void __launch_bounds__(128) scatter_f32(
    const float* x, const u32* rows, float* out, u32 width) { scatter(x, rows, out, width); }
