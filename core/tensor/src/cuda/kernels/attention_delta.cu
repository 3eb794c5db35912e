// delta[head][token] = <dout, out>, of which attention's gradients take differences.
// Specification: ops/attention, `backward`, whose bits it has.
// Reads dout and out once, and writes 4 bytes a row.
// budget: registers 104, spills 0
#include "types.cuh"

// A warp fetches 16 rows on end, whole lines at a time, and turns them in shared memory so that a pair of threads has a
// row: the even one has the partial sums 0 to 7, the odd one the others, as `lanes` orders them.
template <int D>
__device__ inline void delta_of(const bf16* dout, const bf16* out, float* delta, u32 heads, u32 tokens) {
    const u32 N = 8, ROWS = 16, WARPS = 8, CHUNKS = D / N, FETCHES = ROWS * CHUNKS / 32;
    // Rows lie 32 bytes further apart than they are long: then four of them begin in banks of their own.
    __shared__ __align__(16) u8 memory[WARPS][ROWS][D * 2 + 32];
    u8(&tile)[ROWS][D * 2 + 32] = memory[threadIdx.x / 32];
    u32 lane = threadIdx.x % 32, odd = lane % 2;
    u64 rows = u64(tokens) * heads, first = thread_index() / 32 * ROWS;
    uint4 x[FETCHES], y[FETCHES];
#pragma unroll
    for (u32 i = 0; i < FETCHES; i++) {
        u32 chunk = i * 32 + lane;
        u64 at = first * D + chunk * N;
        x[i] = y[i] = make_uint4(0, 0, 0, 0);
        if (first + chunk / CHUNKS < rows) {
            x[i] = *reinterpret_cast<const uint4*>(dout + at);
            y[i] = *reinterpret_cast<const uint4*>(out + at);
        }
    }
    auto turn = [&](uint4(&words)[FETCHES]) {
        __syncwarp();
#pragma unroll
        for (u32 i = 0; i < FETCHES; i++) {
            u32 chunk = i * 32 + lane;
            *reinterpret_cast<uint4*>(tile[chunk / CHUNKS] + chunk % CHUNKS * 16) = words[i];
        }
        __syncwarp();
#pragma unroll
        for (u32 i = 0; i < FETCHES; i++) words[i] = *reinterpret_cast<uint4*>(tile[lane / 2] + (i * 2 + odd) * 16);
    };
    turn(x);
    turn(y);
    float sums[N] = {};
#pragma unroll
    for (u32 i = 0; i < FETCHES; i++) {
        const u32 a[4] = {x[i].x, x[i].y, x[i].z, x[i].w}, b[4] = {y[i].x, y[i].y, y[i].z, y[i].w};
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            sums[j * 2] = fmaf(low(a[j]), low(b[j]), sums[j * 2]);
            sums[j * 2 + 1] = fmaf(high(a[j]), high(b[j]), sums[j * 2 + 1]);
        }
    }
#pragma unroll
    for (u32 j = 0; j < N; j++) sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], 1);
#pragma unroll
    for (u32 width = N / 2; width > 0; width /= 2)
#pragma unroll
        for (u32 j = 0; j < width; j++) sums[j] += sums[j + width];
    u64 row = first + lane / 2;
    if (odd == 0 && row < rows) delta[row % heads * tokens + row / heads] = sums[0];
}

// Entry points by the elements of a head.
#define PARAMETERS const bf16 *dout, const bf16 *out, float *delta, u32 heads, u32 tokens
#define ARGUMENTS dout, out, delta, heads, tokens

extern "C" __global__ void __launch_bounds__(256) attention_delta_16_bf16(PARAMETERS) { delta_of<16>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) attention_delta_32_bf16(PARAMETERS) { delta_of<32>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) attention_delta_64_bf16(PARAMETERS) { delta_of<64>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) attention_delta_80_bf16(PARAMETERS) { delta_of<80>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) attention_delta_96_bf16(PARAMETERS) { delta_of<96>(ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) attention_delta_128_bf16(PARAMETERS) { delta_of<128>(ARGUMENTS); }
