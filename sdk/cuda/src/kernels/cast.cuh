// What all casts do: find maxima, encode, count what is lost, turn codes over.
// Specification: fp8flow-kernels' `cast::specification`.
#pragma once

#include "fp8.cuh"

// This block's number from behind. What looks at a matrix first begins with the end of it, which its producer has left
// in L2; what reads it once more begins with the start.
__device__ inline u32 last_first() { return gridDim.x - 1 - blockIdx.x; }

const u32 INFINITE = 0x7f800000u;

// What a layer counts, in the order of `cast::Counters`.
struct Counters {
    u64 saturated, underflowed, non_finite;
};

// Eight elements of a row as they lie, in words; `four` widens a half of them. bf16 takes half the registers so.
template <class A> struct Eight {
    static const u32 WORDS = 2 * sizeof(A);
    u32 words[WORDS];
    __device__ static Eight zeros() { return {}; }
    __device__ static Eight load(const A* at) {
        Eight eight;
        const uint4* from = reinterpret_cast<const uint4*>(at);
#pragma unroll
        for (u32 i = 0; i < WORDS; i += 4) {
            uint4 four = from[i / 4];
            eight.words[i] = four.x, eight.words[i + 1] = four.y;
            eight.words[i + 2] = four.z, eight.words[i + 3] = four.w;
        }
        return eight;
    }
    __device__ void four(u32 half, float (&x)[4]) const {
        if constexpr (WORDS == 4) {
            u32 a = words[2 * half], b = words[2 * half + 1];
            x[0] = low(a), x[1] = high(a), x[2] = low(b), x[3] = high(b);
        } else {
#pragma unroll
            for (u32 j = 0; j < 4; j++) x[j] = __uint_as_float(words[4 * half + j]);
        }
    }
};

__device__ inline u32 larger(u32 x, u32 y) { return x > y ? x : y; }

// Maxima of magnitudes lie in words as elements do: one f32, or two bf16 side by side, of two columns. Raises those of
// `tops` by the elements of `word`. A NaN is passed over, or is the maximum if NAN.
template <class A, bool NAN> __device__ inline u32 higher(u32 tops, u32 word) {
    if constexpr (sizeof(A) == 2) return bf16x2_max<NAN>(tops, word & 0x7fff7fffu);
    if constexpr (NAN) return larger(tops, word & 0x7fffffffu);
    return __float_as_uint(fmaxf(__uint_as_float(tops), fabsf(__uint_as_float(word))));
}

template <class A, bool NAN> __device__ inline u32 higher(u32 tops, uint4 words) {
    tops = higher<A, NAN>(higher<A, NAN>(tops, words.x), words.y);
    return higher<A, NAN>(higher<A, NAN>(tops, words.z), words.w);
}

// The larger of a word's maxima, as the bits of a float; or the one of column `i` of the word.
template <class A> __device__ inline u32 top_of(u32 tops) {
    return sizeof(A) == 2 ? larger(tops << 16, tops & 0xffff0000u) : tops;
}
template <class A> __device__ inline u32 top_of(u32 tops, u32 i) {
    return sizeof(A) == 4 ? tops : i == 0 ? tops << 16 : tops & 0xffff0000u;
}

// The largest of the lanes that differ in these bits of their number.
__device__ inline u32 largest_of(u32 top, u32 first_bit, u32 last_bit) {
    for (u32 bit = first_bit; bit <= last_bit; bit *= 2) top = larger(top, __shfl_xor_sync(0xffffffffu, top, bit));
    return top;
}

// The largest of all threads, of whole warps, in each of them; `tops` is for this alone.
__device__ inline u32 largest_of_block(u32 top, u32 (&tops)[32]) {
    top = largest_of(top, 1, 16);
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) top = larger(top, tops[warp]);
    return top;
}

// Raises a maximum in memory; the one who makes it other than finite counts that.
__device__ inline void raise(u32* maximum, u32 top, Counters* counters) {
    if (top == 0) return;
    if (top < INFINITE) {
        raise_to(maximum, top);
    } else if (atomicMax(maximum, top) < INFINITE && counters) {
        atomicAdd(&counters->non_finite, 1ull);
    }
}

// Lanes whose numbers differ in bits from `bit` on share out the maxima of all of them, in words: at each bit a lane
// gives away half of what it has. Lane l ends up with number i * lanes + l / bit % lanes in tops[i].
template <class A, bool NAN, u32 N> __device__ inline void share_out(u32 (&tops)[N], u32 bit, u32 lanes) {
#pragma unroll
    for (u32 given = 1; given < lanes; given *= 2) {
        bool odd = threadIdx.x & (bit * given);
#pragma unroll
        for (u32 i = 0; i < N / 2 / given; i++) {
            u32 kept = odd ? tops[2 * i + 1] : tops[2 * i], gone = odd ? tops[2 * i] : tops[2 * i + 1];
            tops[i] = higher<A, NAN>(kept, __shfl_xor_sync(0xffffffffu, gone, bit * given));
        }
    }
}

// Codes of four elements, the first in the lowest byte.
template <class F> __device__ inline u32 encode(const float (&x)[4], float4 scales) {
    u32 first = F::encode(x[0] * scales.x, x[1] * scales.y), second = F::encode(x[2] * scales.z, x[3] * scales.w);
    return first | second << 16;
}

// Codes where there are elements, zeros elsewhere: there a scale may be a NaN.
__device__ inline u32 only_if(bool there, u32 codes) { return codes & (there ? 0xffffffffu : 0u); }
__device__ inline uint2 only_if(bool there, uint2 codes) {
    return {only_if(there, codes.x), only_if(there, codes.y)};
}

// Codes of eight elements with one scale.
template <class F, class A> __device__ inline uint2 encode(const Eight<A>& eight, float scale) {
    float first[4], second[4];
    eight.four(0, first), eight.four(1, second);
    float4 scales = {scale, scale, scale, scale};
    return {encode<F>(first, scales), encode<F>(second, scales)};
}

// Where `i` is known when this is compiled.
__device__ inline float part_of(float4 x, u32 i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

// What a thread's elements lose.
struct Lost {
    u32 saturated, underflowed;
    template <class F> __device__ void see(const float (&x)[4], float4 scales) {
        see_one<F>(x[0], scales.x), see_one<F>(x[1], scales.y), see_one<F>(x[2], scales.z), see_one<F>(x[3], scales.w);
    }
    template <class F> __device__ void see_one(float x, float scale) {
        float scaled = fabsf(x * scale);
        saturated += (__float_as_uint(x) & 0x7fffffffu) < INFINITE && scaled > F::max();
        underflowed += x != 0.0f && scaled <= F::half_least();
    }
    // Adds up what all threads of the warp lose.
    __device__ void report(Counters* counters) {
        for (u32 bit = 1; bit < 32; bit *= 2) {
            saturated += __shfl_xor_sync(0xffffffffu, saturated, bit);
            underflowed += __shfl_xor_sync(0xffffffffu, underflowed, bit);
        }
        if (threadIdx.x % 32 != 0) return;
        if (saturated) atomicAdd(&counters->saturated, u64(saturated));
        if (underflowed) atomicAdd(&counters->underflowed, u64(underflowed));
    }
};

// Rows that codes have: those after the matrix are zeros, so that they can be contracted over.
__device__ inline u64 padded(u64 rows) { return (rows + 15) / 16 * 16; }
__device__ inline u64 fours(u64 n) { return (n + 3) / 4 * 4; }

// A stripe is 128 rows of 64 columns, of which each of 256 threads has 4 rows and 8 columns: a warp 16 rows, so that
// the 16 codes of a column that are stored at once lie in one warp.
const u32 STRIPE_ROWS = 128;
const u32 STRIPE_COLS = 64;
struct Place {
    u32 group;  // which 8 columns
    u32 quad;   // which 4 rows
};
__device__ inline Place place() { return {threadIdx.x % 8, threadIdx.x / 8}; }

// How many of a thread's four rows from `row` on there are. Codes have all four or none.
__device__ inline u32 rows_there(u64 row, u64 rows) { return row >= rows ? 0 : rows - row < 4 ? u32(rows - row) : 4; }

// This thread's elements of the stripe, from (row, col) on; zeros outside of the matrix.
template <class A>
__device__ inline void load_stripe(Eight<A> (&x4)[4], const A* x, u64 row, u64 col, u64 rows, u64 cols) {
    const A* from = x + row * cols + col;
    u32 there = col < cols ? rows_there(row, rows) : 0;
#pragma unroll
    for (u32 r = 0; r < 4; r++) {
        x4[r] = Eight<A>::zeros();
        if (r < there) x4[r] = Eight<A>::load(from);
        from += cols;
    }
}

// The codes of a stripe, column by column: 16 rows of a column are a chunk. Its chunks change places from one group of
// columns to the next, so that a warp's words are in different banks when they are written, and when they are read.
typedef uint4 Turned[STRIPE_COLS * STRIPE_ROWS / 16];
__device__ inline u32 chunk_at(u32 col, u32 chunk) { return col * 8 + (chunk ^ (col / 8 % 8)); }

// Puts 4 rows of 4 columns, from column `col` of the stripe on, into their places; a word is a row.
__device__ inline void turn(uint4* turned, u32 col, u32 quad, const u32 (&row)[4]) {
    u32 a = __byte_perm(row[0], row[1], 0x5140), b = __byte_perm(row[2], row[3], 0x5140);
    u32 c = __byte_perm(row[0], row[1], 0x7362), d = __byte_perm(row[2], row[3], 0x7362);
    u32 column[4] = {__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(c, d, 0x5410),
                     __byte_perm(c, d, 0x7632)};
    u32* words = reinterpret_cast<u32*>(turned);
#pragma unroll
    for (u32 i = 0; i < 4; i++) words[chunk_at(col + i, quad / 4) * 4 + quad % 4] = column[i];
}

// Stores a stripe whose first element is (row, col): to each column 128 bytes.
__device__ inline void store_turned(const uint4* turned, u8* codes, u64 row, u64 col, u64 rows, u64 cols) {
    for (u32 i = threadIdx.x; i < STRIPE_COLS * STRIPE_ROWS / 16; i += 256) {
        u64 r = row + i % 8 * 16, c = col + i / 8;
        if (c < cols && r < padded(rows)) {
            *reinterpret_cast<uint4*>(codes + c * padded(rows) + r) = turned[chunk_at(i / 8, i % 8)];
        }
    }
}
