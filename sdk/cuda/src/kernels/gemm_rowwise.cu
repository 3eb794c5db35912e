// FP8 products with a factor a row of each operand, which cuBLASLt lacks on Ada:
// d[m,n] (+)= (sum_k a[m,k] * b[n,k]) * factor_a[m] * factor_b[n], k contiguous in both.
// Specification: fp8flow-kernels' `gemm` with `Epilogue::PerRow`; sums in another order, within f32's rounding.
// Reads m*k*ceil(n/128) + n*k*ceil(m/128) bytes, most of them from L2; writes m*n outputs.
// k, n and the strides of a and b are multiples of 16, m is any; addresses of a, b and d are multiples of 16.
// `fast` sums over all of k in the tensor core, which keeps fewer bits than f32; else every 128 of k are added in f32.
// budget: registers 176, spills 0
// expects sm_89: QMMA
#include "types.cuh"

const u32 TILE = 128;       // rows of a, and rows of b, of a block
const u32 STEP = 64;        // bytes of k at a time
const u32 STAGES = 3;       // 48 KiB, so that two blocks of a `fast` kernel fit a multiprocessor
const u32 PROMOTE = 128;    // k of a sum in the tensor core
const u32 BAND = 8;         // tiles of rows that share the columns' tiles while these are in L2
const u32 SLICE = TILE * STEP;
// Hopper unpacks FP8 for HMMA: both halves of a step at once would take more registers than there are.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
const u32 PARTS_AT_ONCE = 1;
#else
const u32 PARTS_AT_ONCE = STEP / 32;
#endif

struct E4m3E4m3 {
    __device__ static void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_e4m3_e4m3(d, a, b0, b1); }
};
struct E4m3E5m2 {
    __device__ static void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_e4m3_e5m2(d, a, b0, b1); }
};
struct E5m2E4m3 {
    __device__ static void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_e5m2_e4m3(d, a, b0, b1); }
};

// Where 16 bytes of a tile's row lie. Two rows fill the 32 banks; the four chunks change places from pair to pair, so
// that eight rows' same chunk, an 8x8 matrix of `ldmatrix`, is in different banks.
__device__ inline u32 swizzle(u32 row, u32 chunk) { return row * STEP + ((chunk ^ (row >> 1)) % 4) * 16; }

// Starts copying 128 rows, from `row` on, and 64 bytes of k, from `k0` on; zeros where the matrix has ended.
__device__ inline void copy_tile(u8* tile, const u8* matrix, u64 row, u64 rows, u64 k0, u64 k, u64 stride) {
    for (u32 i = 0; i < SLICE / 16 / 256; i++) {
        u32 at = threadIdx.x + i * 256;
        u32 r = at / 4, chunk = at % 4;
        bool valid = row + r < rows && k0 + chunk * 16 < k;
        const u8* from = valid ? matrix + (row + r) * stride + k0 + chunk * 16 : matrix;
        copy_async_16(tile + swizzle(r, chunk), from, valid);
    }
}

__device__ inline void put(float* at, float x, float y, bool accumulate) {
    float2 old = {0.0f, 0.0f};
    if (accumulate) old = *reinterpret_cast<const float2*>(at);
    float2 sum = {x, y};
    if (accumulate) sum = {old.x + x, old.y + y};
    *reinterpret_cast<float2*>(at) = {narrow<float>(sum.x), narrow<float>(sum.y)};
}
__device__ inline void put(bf16* at, float x, float y, bool accumulate) {
    u32* word = reinterpret_cast<u32*>(at);
    if (accumulate) {
        u32 old = *word;
        x = low(old) + x;
        y = high(old) + y;
    }
    *word = pair(x, y);
}

// A block makes a tile of 128 x 128 by 8 warps, 2 down and 4 across, each 64 x 32.
template <class Types, class Out, bool FAST>
__device__ void gemm_rowwise(const u8* a, const u8* b, Out* d, const float* factor_a, const float* factor_b, u64 m,
                             u64 n, u64 k, u64 stride_a, u64 stride_b, u64 stride_d, u32 accumulate) {
    u8* tiles = dynamic_shared();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;

    u32 down = u32((m + TILE - 1) / TILE), across = u32((n + TILE - 1) / TILE);
    u32 first = blockIdx.x / (BAND * across) * BAND;
    u32 height = down - first < BAND ? down - first : BAND;
    u32 within = blockIdx.x % (BAND * across);
    u64 row = u64(first + within % height) * TILE, col = u64(within / height) * TILE;

    u32 steps = u32((k + STEP - 1) / STEP);
    auto copy = [&](u32 step) {
        if (step < steps) {
            u8* stage = tiles + step % STAGES * (2 * SLICE);
            copy_tile(stage, a, row, m, u64(step) * STEP, k, stride_a);
            copy_tile(stage + SLICE, b, col, n, u64(step) * STEP, k, stride_b);
        }
        copy_async_commit();
    };
    for (u32 step = 0; step < STAGES - 1; step++) copy(step);

    float sums[4][4][4] = {}, total[4][4][4] = {};
    for (u32 step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        // All have their bytes of this step, and none reads those that the next copy takes the place of.
        __syncthreads();
        copy(step + STAGES - 1);
        const u8* at = tiles + step % STAGES * (2 * SLICE);
        const u8* bt = at + SLICE;
#pragma unroll PARTS_AT_ONCE
        for (u32 part = 0; part < STEP / 32; part++) {
            u32 fa[4][4], fb[2][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                ldmatrix_x4(fa[i], at + swizzle(warp_m + i * 16 + lane % 16, part * 2 + lane / 16));
#pragma unroll
            for (u32 j = 0; j < 2; j++)
                ldmatrix_x4(fb[j],
                            bt + swizzle(warp_n + j * 16 + lane / 16 * 8 + lane % 8, part * 2 + lane / 8 % 2));
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++)
                    Types::mma(sums[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
        if (!FAST && step % (PROMOTE / STEP) == PROMOTE / STEP - 1) {
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++)
#pragma unroll
                    for (u32 l = 0; l < 4; l++) {
                        total[i][j][l] += sums[i][j][l];
                        sums[i][j][l] = 0.0f;
                    }
        }
    }
    copy_async_wait<0>();

    // Read before anything is written, which the compiler must take for the factors otherwise.
    u64 first_col = col + warp_n + lane % 4 * 2;
    float fb[4][2] = {};
#pragma unroll
    for (u32 j = 0; j < 4; j++)
        if (first_col + j * 8 < n) fb[j][0] = factor_b[first_col + j * 8], fb[j][1] = factor_b[first_col + j * 8 + 1];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u64 r = row + warp_m + i * 16 + half * 8 + lane / 4;
            if (r >= m) continue;
            float fa = factor_a[r];
            Out* to = d + r * stride_d + first_col;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                if (first_col + j * 8 >= n) continue;
                float x = sums[i][j][half * 2], y = sums[i][j][half * 2 + 1];
                if (!FAST) {
                    x += total[i][j][half * 2];
                    y += total[i][j][half * 2 + 1];
                }
                put(to + j * 8, x * fa * fb[j][0], y * fa * fb[j][1], accumulate != 0);
            }
        }
}

// One entry point for each pair of formats, result and way of summing.
#define ARGUMENTS a, b, d, factor_a, factor_b, m, n, k, stride_a, stride_b, stride_d, accumulate

extern "C" __global__ void __launch_bounds__(256) gemm_e4m3_e4m3_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E4m3, bf16, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_e4m3_e5m2_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E5m2, bf16, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_e5m2_e4m3_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E5m2E4m3, bf16, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_e4m3_e4m3_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E4m3, float, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_e4m3_e5m2_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E5m2, float, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_e5m2_e4m3_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E5m2E4m3, float, false>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e4m3_e4m3_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E4m3, bf16, true>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e4m3_e5m2_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E5m2, bf16, true>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e5m2_e4m3_bf16(
    const u8* a, const u8* b, bf16* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E5m2E4m3, bf16, true>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e4m3_e4m3_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E4m3, float, true>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e4m3_e5m2_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E4m3E5m2, float, true>(ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) gemm_fast_e5m2_e4m3_f32(
    const u8* a, const u8* b, float* d, const float* factor_a, const float* factor_b, u64 m, u64 n, u64 k, u64 stride_a,
    u64 stride_b, u64 stride_d, u32 accumulate) {
    gemm_rowwise<E5m2E4m3, float, true>(ARGUMENTS);
}
