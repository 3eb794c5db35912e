// What the attention kernels for Hopper share: tiles of head vectors in shared memory as its products read them, the
// threads that fetch them, and sums on their way out.
// Specification: fp8flow-tensor's `ops/attention`, whose words these are.
#pragma once

#include "wgmma.cuh"
#include "work.cuh"

// Two groups of four warps multiply, each for 64 rows; a third one fetches.
const u32 GROUP = 128;
const u32 ROWS = 64;
const u32 GROUPS = 2;
// Threads that fetch a tensor, and warps that say when they have read it.
const u32 FETCHERS = 64;
const u32 READERS = GROUPS * GROUP / 32;
// Registers of a thread that multiplies, and of one that fetches.
const int FEW = 40, MANY = 232;

// Rows that a block takes for its own: queries or keys. The host cuts sequences alike.
const u32 OWN = GROUPS * ROWS;

__device__ inline u32 group_of_warps() { return __shfl_sync(0xffffffffu, threadIdx.x / GROUP, 0); }

// A tile of COUNT rows of D bf16: 64 columns lie beside the next 64, in rows of 128 bytes whose chunks of 16 bytes
// change places with the row's number.
template <int D, u32 COUNT> struct Tile {
    static const u32 BYTES = COUNT * D * 2;
    static const u32 NEXT = COUNT * 128;
    __device__ static u32 at(u32 row, u32 chunk) { return chunk / 8 * NEXT + row * 128 + (chunk ^ row) % 8 * 16; }
};

// Fetches a tile whose rows lie `stride` elements apart; those from `count` on are zero.
template <int D, u32 COUNT> __device__ inline void fetch(u8* tile, const bf16* rows, u32 stride, u32 count) {
    // Rows that all threads fetch at once, and twice as many or more, so that chunks change places alike every time.
    const u32 CHUNKS = D / 8, STEP = FETCHERS / CHUNKS, ROUND = STEP < 8 ? 8 : STEP;
    u32 thread = threadIdx.x % FETCHERS, row = thread / CHUNKS, chunk = thread % CHUNKS;
    rows += u64(row) * stride + chunk * 8;
    i32 left = i32(count - row);
#pragma unroll 1
    for (u32 round = 0; round < COUNT; round += ROUND) {
#pragma unroll
        for (u32 i = 0; i < ROUND; i += STEP) {
            copy_async_16(tile + Tile<D, COUNT>::at(row + i, chunk) + round * 128, rows, i32(round + i) < left);
            rows += u64(STEP) * stride;
        }
    }
}
// Waits for what this thread has fetched, and tells those who wait for it.
__device__ inline void fetched(u64* full) {
    copy_async_commit();
    copy_async_wait<0>();
    products_see();
    barrier_arrive(full);
}
// This warp has read what it waited for: by instructions of the whole warp, or what all of it has used in one since. One
// thread speaks for it, which a checker of races that goes thread by thread cannot follow.
__device__ inline void done_with(u64* empty) {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty);
}

// A place in a ring of buffers, and how often it went around, modulo 2.
template <u32 STAGES> struct Ring {
    u32 slot = 0, turn = 0;
    __device__ void next() {
        slot++;
        if (slot == STAGES) slot = 0, turn ^= 1;
    }
};

// What threads that fetch fill and who tells them to: a tile of the block's own, and a ring of others.
template <u32 STAGES> struct Buffers {
    u8 *own, *ring;
    u64 *full_own, *empty_own, *full, *empty;
};

// Fetches keys or values for a block's queries, the last ones first; and, before, rows of the queries themselves.
template <int D, u32 N, u32 STAGES>
__device__ inline void fetch_keys(const Buffers<STAGES>& to, const bf16* own_rows, const bf16* rows, const Work* work,
                                  u32 heads, u32 kv_heads, u32 tiles) {
    Ring<STAGES> ring;
    u32 turn = 1;
    for (u32 at = blockIdx.x; at < heads * tiles; at += gridDim.x) {
        Work own = work[at / heads];
        u32 head = at % heads;
        if (own_rows) {
            barrier_wait(to.empty_own, turn);
            turn ^= 1;
            const bf16* from = own_rows + (u64(own.start + own.first) * heads + head) * D;
            fetch<D, OWN>(to.own, from, heads * D, own.len - own.first);
            fetched(to.full_own);
        }
        const bf16* start = rows + (u64(own.start) * kv_heads + head / (heads / kv_heads)) * D;
        for (u32 tile = (least(own.first + OWN, own.len) + N - 1) / N; tile > 0; ring.next()) {
            tile--;
            barrier_wait(to.empty + ring.slot, ring.turn ^ 1);
            const bf16* from = start + u64(tile * N) * (kv_heads * D);
            fetch<D, N>(to.ring + ring.slot * Tile<D, N>::BYTES, from, kv_heads * D, own.len - tile * N);
            fetched(to.full + ring.slot);
        }
    }
}

// Fetches queries or their gradients for a block's keys, of one head after the other, and a statistic of each, times
// `factor` and `missing` past the end; and, before, rows of the keys or the values themselves.
template <int D, u32 N, u32 STAGES>
__device__ inline void fetch_queries(const Buffers<STAGES>& to, float* statistics, const bf16* own_rows,
                                     const bf16* rows, const float* statistic, float factor, float missing,
                                     const Work* work, u32 heads, u32 kv_heads, u32 tokens, u32 tiles) {
    Ring<STAGES> ring;
    u32 turn = 1, thread = threadIdx.x % FETCHERS;
    for (u32 at = blockIdx.x; at < kv_heads * tiles; at += gridDim.x) {
        Work own = work[at / kv_heads];
        u32 kv = at % kv_heads, start = own.start + own.first, len = own.len - own.first;
        barrier_wait(to.empty_own, turn);
        turn ^= 1;
        fetch<D, OWN>(to.own, own_rows + (u64(start) * kv_heads + kv) * D, kv_heads * D, len);
        fetched(to.full_own);
        u32 head = kv * (heads / kv_heads);
        for (u32 end = head + heads / kv_heads; head < end; head++) {
            for (u32 query = 0; query < len; query += N, ring.next()) {
                barrier_wait(to.empty + ring.slot, ring.turn ^ 1);
                const bf16* from = rows + (u64(start + query) * heads + head) * D;
                fetch<D, N>(to.ring + ring.slot * Tile<D, N>::BYTES, from, heads * D, len - query);
#pragma unroll
                for (u32 i = 0; i < N; i += FETCHERS) {
                    u32 row = query + i + thread;
                    if (i + thread < N) {
                        float own_statistic = missing;
                        if (row < len) own_statistic = statistic[head * tokens + start + row] * factor;
                        statistics[ring.slot * N + i + thread] = own_statistic;
                    }
                }
                fetched(to.full + ring.slot);
            }
        }
    }
}

// sums = a * b^T for 64 rows of `a`, a tile of A_COUNT rows, from `row` on.
template <int D, u32 A_COUNT, int N>
__device__ inline void products(float (&sums)[N / 2], const u8* a, u32 row, const u8* b) {
    u64 left = described(a + row * 128, 16), right = described(b, 16);
#pragma unroll
    for (u32 step = 0; step < D / 16; step++) {
        u32 inner = step % 4 * 32, outer = step / 4;
        Wgmma<N>::both(sums, left + (outer * Tile<D, A_COUNT>::NEXT + inner) / 16,
                       right + (outer * Tile<D, N>::NEXT + inner) / 16, step > 0);
    }
}
// The same for rows in registers.
template <int D, int N>
__device__ inline void products(float (&sums)[N / 2], const u32 (&a)[D / 16][4], const u8* b) {
    u64 right = described(b, 16);
#pragma unroll
    for (u32 step = 0; step < D / 16; step++) {
        Wgmma<N>::left(sums, a[step], right + (step / 4 * Tile<D, N>::NEXT + step % 4 * 32) / 16, step > 0);
    }
}
// sums += weights * rows, for a tile of N rows.
template <int D, int N>
__device__ inline void mix(float (&sums)[D / 2], const u32 (&weights)[N / 16][4], const u8* rows) {
    u64 right = described(rows, Tile<D, N>::NEXT);
#pragma unroll
    for (u32 step = 0; step < N / 16; step++) Wgmma<D>::mix(sums, weights[step], right + step * 2048 / 16, true);
}

// Sums of 64 rows as the left factor, rounded to bf16.
template <int N> __device__ inline void rounded(u32 (&words)[N / 16][4], const float (&sums)[N / 2]) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) words[i / 4][i % 4] = bf16x2_bits(sums[i * 2], sums[i * 2 + 1]);
}

// This warp's 16 of 64 rows of a tile as the left factor.
template <int D, u32 COUNT> __device__ inline void held(u32 (&words)[D / 16][4], const u8* tile, u32 row) {
    u32 lane = threadIdx.x % 32, own = row + threadIdx.x % GROUP / 32 * 16 + lane % 16;
#pragma unroll
    for (u32 step = 0; step < D / 16; step++) {
        ldmatrix_x4(words[step], tile + Tile<D, COUNT>::at(own, step * 2 + lane / 16));
    }
}

// Row and column of sum i of 64 rows: sums 0 and 1 of four are of the first row, 2 and 3 of one 8 rows further down.
__device__ inline u32 row_of(int i) { return threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8; }
__device__ inline u32 column_of(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Stores sums of 64 rows to rows that lie `stride` elements apart, those from `count` on left out. The four threads of
// a row exchange words, so that each has 16 bytes on end.
template <int D> __device__ inline void store(const float (&sums)[D / 2], bf16* rows, u32 stride, u32 count) {
    const u32 ALL = 0xffffffffu;
    u32 own = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 row = row_of(half * 2);
#pragma unroll
        for (int chunk = 0; chunk < D / 8; chunk += 4) {
            u32 words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = (chunk + i) * 4 + half * 2;
                words[i] = pair(sums[at], sums[at + 1]);
            }
#pragma unroll
            for (u32 step = 1; step < 4; step *= 2)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    if ((i & step) == 0) {
                        u32 there = __shfl_xor_sync(ALL, own & step ? words[i] : words[i | step], step);
                        if (own & step) words[i] = there;
                        else words[i | step] = there;
                    }
            if (row < count) {
                bf16* to = rows + u64(row) * stride + (chunk + own) * 8;
                *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
            }
        }
    }
}
