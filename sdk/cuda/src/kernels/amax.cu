// Absolute maxima: of all elements, or of each column and of each row at once. Raises what is there: zeros at first.
// Specification: fp8flow-kernels' `amax_for`. Each element is read once; at 16 bytes a load, four loads under way, this
// runs at the card's memory. Maxima are combined as bits, whose order is that of the magnitudes, in any order.
// Two bf16 are taken at a time, so that it is still memory that limits two maxima an element.
// budget: registers 64, spills 0
// expects sm_89: LDG.E.128
// expects sm_90a: LDG.E.128
#include "cast.cuh"

// The maximum of this thread, whose 16 bytes at a time lie among those of all others, the last of them first.
template <class A, bool NAN> __device__ u32 amax_part(const A* x, u64 n) {
    const u32 N = Vector<A>::N;
    u32 tops = 0;
    u64 whole = n / N, step = thread_count(), i = thread_index();
    const uint4* last = reinterpret_cast<const uint4*>(x) + whole - 1;
    for (; i + 3 * step < whole; i += 4 * step) {
        uint4 parts[4];
#pragma unroll
        for (u32 p = 0; p < 4; p++) parts[p] = last[-i64(i + p * step)];
#pragma unroll
        for (u32 p = 0; p < 4; p++) tops = higher<A, NAN>(tops, parts[p]);
    }
    for (; i < whole; i += step) tops = higher<A, NAN>(tops, last[-i64(i)]);
    u64 rest = whole * N + thread_index();
    if (rest < n) tops = higher<A, NAN>(tops, __float_as_uint(widen(x[rest])));
    return top_of<A>(tops);
}

template <class A> __device__ void amax(const A* x, u32* maximum, Counters* counters, u64 n, u32 nan) {
    __shared__ u32 tops[32];
    u32 top = largest_of_block(nan ? amax_part<A, true>(x, n) : amax_part<A, false>(x, n), tops);
    if (threadIdx.x == 0) raise(maximum, top, counters);
}

// A block takes 128 x 128. A thread has columns of 16 bytes, and eight rows at a time of which all are on their way
// together; so the rows of 16 bf16 threads, or of a warp, are 256 or 512 bytes. Returns the maxima of its columns.
const u32 SIDE = 128;
template <class A, bool NAN> __device__ uint4 amax_tile(const A* x, u32* row_maxima, Counters* counters, u64 first_row,
                                                        u64 col, u64 rows, u64 cols) {
    const u32 N = Vector<A>::N, ABREAST = SIDE / N, HELD = 8;
    u32 lane = threadIdx.x % ABREAST, team = threadIdx.x / ABREAST;
    uint4 own = {0, 0, 0, 0};
#pragma unroll 1
    for (u32 begin = 0; begin < SIDE; begin += 256 / ABREAST * HELD) {
        u64 row = first_row + begin + team * HELD;
        const A* from = x + row * cols + col;
        uint4 held[HELD];
#pragma unroll
        for (u32 r = 0; r < HELD; r++) {
            held[r] = uint4{0, 0, 0, 0};
            if (col < cols && row + r < rows) held[r] = *reinterpret_cast<const uint4*>(from);
            from += cols;
        }
        u32 tops[HELD];
#pragma unroll
        for (u32 r = 0; r < HELD; r++) {
            own.x = higher<A, NAN>(own.x, held[r].x), own.y = higher<A, NAN>(own.y, held[r].y);
            own.z = higher<A, NAN>(own.z, held[r].z), own.w = higher<A, NAN>(own.w, held[r].w);
            tops[r] = higher<A, NAN>(0, held[r]);
        }
        if (!row_maxima) continue;
        share_out<A, NAN>(tops, 1, HELD);
        u32 top = largest_of(top_of<A>(tops[0]), HELD, ABREAST / 2);
        if (lane < HELD && row + lane < rows) raise(row_maxima + row + lane, top, counters);
    }
    return own;
}

// `row_maxima` may be absent.
template <class A> __device__ void amax_lines(const A* x, u32* row_maxima, u32* col_maxima, Counters* counters,
                                              u64 rows, u64 cols, u32 nan) {
    const u32 N = Vector<A>::N, ABREAST = SIDE / N, IN_WORD = N / 4;
    __shared__ uint4 tops[256 / ABREAST][ABREAST];
    u32 across = u32((cols + SIDE - 1) / SIDE), lane = threadIdx.x % ABREAST;
    u64 first_row = u64(last_first() / across) * SIDE, first_col = u64(last_first() % across) * SIDE;
    u64 col = first_col + lane * N;
    tops[threadIdx.x / ABREAST][lane] = nan ? amax_tile<A, true>(x, row_maxima, counters, first_row, col, rows, cols)
                                            : amax_tile<A, false>(x, row_maxima, counters, first_row, col, rows, cols);
    __syncthreads();
    u64 own = first_col + threadIdx.x;
    if (threadIdx.x >= SIDE || own >= cols) return;
    u32 most = 0;
    for (u32 team = 0; team < 256 / ABREAST; team++) {
        u32 word = reinterpret_cast<const u32*>(tops[team])[threadIdx.x / IN_WORD];
        most = larger(most, top_of<A>(word, threadIdx.x % IN_WORD));
    }
    raise(col_maxima + own, most, counters);
}

extern "C" __global__ void __launch_bounds__(256) amax_bf16(
    const bf16* x, u32* maximum, Counters* counters, u64 n, u32 nan) { amax(x, maximum, counters, n, nan); }
extern "C" __global__ void __launch_bounds__(256) amax_f32(
    const float* x, u32* maximum, Counters* counters, u64 n, u32 nan) { amax(x, maximum, counters, n, nan); }
extern "C" __global__ void __launch_bounds__(256, 4) amax_lines_bf16(
    const bf16* x, u32* row_maxima, u32* col_maxima, Counters* counters, u64 rows, u64 cols, u32 nan) {
    amax_lines(x, row_maxima, col_maxima, counters, rows, cols, nan);
}
extern "C" __global__ void __launch_bounds__(256, 4) amax_lines_f32(
    const float* x, u32* row_maxima, u32* col_maxima, Counters* counters, u64 rows, u64 cols, u32 nan) {
    amax_lines(x, row_maxima, col_maxima, counters, rows, cols, nan);
}
