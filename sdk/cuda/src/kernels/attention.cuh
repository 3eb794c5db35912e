// What the attention kernels share: tiles of head vectors in shared memory, and their products on the tensor cores.
// Specification: fp8flow-tensor's `ops/attention`, whose words these are.
#pragma once

#include "work.cuh"

const u32 THREADS = 128;
const u32 WARPS = THREADS / 32;

// Queries and keys that a block takes for its own. The host cuts sequences alike.
const u32 QUERIES = 128;
const u32 KEYS = 64;

// A tile has rows of D bf16 in chunks of 16 bytes. Chunks of a row change places with their neighbours, row by row, so
// that one chunk of eight rows on end, which is what ldmatrix reads, lies in all 32 banks.
template <int D> struct Tile {
    static const u32 CHUNKS = D / 8;
    static const u32 ROW = D * 2;
    static const u32 GROUP = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
    __device__ static u32 turn(u32 row) { return row / (8 / GROUP) % GROUP; }
    __device__ static u32 at(u32 row, u32 chunk) { return row * ROW + (chunk ^ turn(row)) * 16; }
};

// All threads together fetch so many rows at a time that chunks change places alike every time. This is the row and the
// chunk that a thread begins with, as a distance from the first of a tile whose rows lie `stride` elements apart.
template <int D> struct Fetch {
    static const u32 CHUNKS = Tile<D>::CHUNKS, STEP = THREADS / CHUNKS / 8 * 8;
    __device__ static u64 start(u32 stride) { return u64(threadIdx.x / CHUNKS) * stride + threadIdx.x % CHUNKS * 8; }
};

// Asks for a tile of ROWS rows, given where this thread starts; those from `count` on are zero.
template <int D, u32 ROWS> __device__ inline void fetch(u8* tile, const bf16* start, u32 stride, u32 count) {
    const u32 CHUNKS = Fetch<D>::CHUNKS, STEP = Fetch<D>::STEP;
    u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    if (STEP * CHUNKS < THREADS && row >= STEP) return;
    i32 left = i32(count - row);
    tile += Tile<D>::at(row, chunk);
#pragma unroll
    for (u32 i = 0; i < ROWS; i += STEP) {
        if (ROWS % STEP != 0 && row + i >= ROWS) return;
        copy_async_16(tile + i * Tile<D>::ROW, start, i32(i) < left);
        start += u64(STEP) * stride;
    }
}

// Where a lane reads matrices of 16 rows by 16 elements: its row, and its chunk of the first step of 16 elements.
template <int D> struct Reader {
    const u8* row;
    u32 chunk;
    __device__ const void* at(u32 rows, u32 step) const { return row + rows * Tile<D>::ROW + (chunk ^ step * 2) * 16; }
};

// Rows from `row` on as the left factor; or, transposed on the way, as the right factor whose columns they span.
template <int D> __device__ inline Reader<D> down(const u8* tile, u32 row = 0) {
    u32 lane = threadIdx.x % 32, own = lane % 16;
    return {tile + (row + own) * Tile<D>::ROW, Tile<D>::turn(own) ^ lane / 16};
}

// Rows as the columns of the right factor.
template <int D> __device__ inline Reader<D> across(const u8* tile) {
    u32 lane = threadIdx.x % 32, own = lane / 16 * 8 + lane % 8;
    return {tile + own * Tile<D>::ROW, Tile<D>::turn(own) ^ lane / 8 % 2};
}

// scores[m][n] = the products of 16 M rows of `a` with 8 N rows of `b`.
template <int D, int M, int N>
__device__ inline void products(float (&scores)[M][N][4], const Reader<D>& a, const Reader<D>& b) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) scores[m][n][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        u32 left[M][4], right[4];
#pragma unroll
        for (int m = 0; m < M; m++) ldmatrix_x4(left[m], a.at(m * 16, step));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            ldmatrix_x4(right, b.at(n * 8, step));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(scores[m][n], left[m], right[0], right[1]);
                mma_bf16(scores[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// out[m] += weights[m] * rows, the weights rounded to bf16: sums of a score tile are the left factor as they lie.
template <int D, int M, int N>
__device__ inline void mix(float (&out)[M][D / 8][4], const float (&weights)[M][N][4], const Reader<D>& rows) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        u32 left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                left[m][i] = bf16x2_bits(weights[m][n + i / 2][i % 2 * 2], weights[m][n + i / 2][i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            u32 right[4];
            ldmatrix_x4_trans(right, rows.at(n * 8, step));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(out[m][step * 2], left[m], right[0], right[1]);
                mma_bf16(out[m][step * 2 + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// Row and column of sum i of a matrix of 16 by 8.
__device__ inline u32 row_of(int i) { return threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ inline u32 column_of(int i) { return threadIdx.x % 4 * 2 + i % 2; }

// Stores the warp's 16 M rows of sums by way of the rows from `row` on of `tile`, which only this warp still uses, to
// rows that lie `stride` elements apart; those from `count` on are left out.
template <int D, int M>
__device__ inline void store(const float (&sums)[M][D / 8][4], u8* tile, u32 row, bf16* rows, u32 stride, u32 count) {
    const u32 CHUNKS = Tile<D>::CHUNKS;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                u8* at = tile + Tile<D>::at(row + m * 16 + row_of(i), n) + column_of(0) * 2;
                *reinterpret_cast<u32*>(at) = pair(sums[m][n][i], sums[m][n][i + 1]);
            }
    __syncwarp();
#pragma unroll 4
    for (u32 at = threadIdx.x % 32; at < M * 16 * CHUNKS; at += 32) {
        u32 own = at / CHUNKS, chunk = at % CHUNKS;
        if (own < count) {
            uint4 words = *reinterpret_cast<const uint4*>(tile + Tile<D>::at(row + own, chunk));
            *reinterpret_cast<uint4*>(rows + u64(own) * stride + chunk * 8) = words;
        }
    }
}
