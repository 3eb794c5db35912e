// Sums in one order: add_rows, total[j] += Σ_i rows[i][j], i ascending; square_chunks, Σ x^2 in f64 over each chunk of
// 4096 elements with 16 partial sums; add_chunks, the sum of chunks, ascending.
// Specification: ops/reduce.rs. add_rows reads 4 bytes an element, a thread a column. square_chunks reads 4 bytes an
// element, a block a chunk: 16 bytes a thread into shared memory, where one warp adds, 256 steps that the other dozen
// blocks of the multiprocessor hide. add_chunks is one warp's chain of additions a tensor, of all tensors at once.
// budget: registers 64, spills 0
#include "lanes.cuh"

const u32 THREADS = 128, CHUNK = 4096, PIECE = 256;

extern "C" __global__ void __launch_bounds__(128) add_rows_f32(const float* rows, u32 count, u32 n, float* total) {
    u64 j = thread_index();
    if (j >= n) return;
    float sum = 0.0f;
#pragma unroll 8
    for (u32 i = 0; i < count; i++) sum = sum + rows[u64(i) * n + j];
    total[j] += sum;
}

extern "C" __global__ void __launch_bounds__(128) square_chunks_f32(const float* x, u64 n, double* partial) {
    __shared__ float4 fours[CHUNK / 4];
    float* chunk = reinterpret_cast<float*>(fours);
    u64 first = u64(blockIdx.x) * CHUNK;
    u32 len = n - first < CHUNK ? u32(n - first) : CHUNK;
    const float* from = x + first;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < len / 4; i += THREADS) fours[i] = reinterpret_cast<const float4*>(from)[i];
    u32 left = len / 4 * 4 + threadIdx.x;
    if (left < len) chunk[left] = from[left];
    __syncthreads();
    // Blocks that follow each other add on different quarters of the multiprocessor.
    if (threadIdx.x / 32 != blockIdx.x % (THREADS / 32)) return;
    double lane = 0.0;
#pragma unroll 8
    for (u32 i = threadIdx.x % LANES; i < len; i += LANES) lane = fma(double(chunk[i]), double(chunk[i]), lane);
    double sum = -0.0;
    for (int j = 0; j < LANES; j++) sum = sum + __shfl_sync(0xffffffffu, lane, j, LANES);
    if (threadIdx.x % 32 == 0) partial[blockIdx.x] = sum;
}

// One thread adds a piece from shared memory while the warp waits for the next.
__device__ void add_chunks(const double* partial, u64 n, double* total) {
    __shared__ double piece[PIECE];
    const u32 EACH = PIECE / 32;
    double next[EACH], sum = -0.0;
    auto read = [&](u64 first) {
        for (u32 j = 0; j < EACH; j++) {
            u64 i = first + j * 32 + threadIdx.x;
            next[j] = i < n ? partial[i] : -0.0;
        }
    };
    read(0);
    for (u64 first = 0; first < n; first += PIECE) {
        for (u32 j = 0; j < EACH; j++) piece[j * 32 + threadIdx.x] = next[j];
        __syncwarp();
        read(first + PIECE);
        if (threadIdx.x == 0) {
#pragma unroll 16
            for (u32 i = 0; i < PIECE; i++) sum = sum + piece[i];
        }
        __syncwarp();
    }
    if (threadIdx.x == 0) *total = sum;
}

extern "C" __global__ void __launch_bounds__(32) add_chunks_f64(
    const double* partial, const u32* starts, double* totals) {
    u32 first = starts[blockIdx.x];
    add_chunks(partial + first, starts[blockIdx.x + 1] - first, totals + blockIdx.x);
}
