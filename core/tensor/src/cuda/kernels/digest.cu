// BLAKE3 of each piece of many tensors: a block a piece, a thread a chunk of 1 KiB, then the tree in shared memory.
// Specification: `blake3::hash` of the piece. Every byte is read once; 32 bytes a piece are written.
// Arithmetic is the limit: 64 bytes take 455 operations of exclusive or and rotation, which have a multiprocessor's 64
// integer lanes to themselves, and 336 additions, which go through its multipliers beside them: 2 TB/s on an H100 by
// count.
// budget: registers 64, spills 0
#include "types.cuh"

enum Flag { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

const u32 CHUNK = 1024;
const u32 BLOCK = 64;
const u32 WORDS = 8;

// Consecutive pieces of `size` bytes, the first of which has number `first`.
struct Stretch {
    u64 address, bytes, first;
};

__device__ inline u32 rotate(u32 x, u32 right) { return x >> right | x << (32 - right); }

// x + y as a multiplication by 1, a number that the compiler does not know: sums of three would be one operation for it,
// of the units that have the most to do.
__device__ inline u32 add(u32 x, u32 y) { return x * gridDim.z + y; }

__device__ inline void mix(u32& a, u32& b, u32& c, u32& d, u32 x, u32 y) {
    a = add(add(a, x), b);
    d = rotate(d ^ a, 16);
    c = add(c, d);
    b = rotate(b ^ c, 12);
    a = add(add(a, y), b);
    d = rotate(d ^ a, 8);
    c = add(c, d);
    b = rotate(b ^ c, 7);
}

// The chaining value after a block of 16 words, of which `bytes` bytes count.
__device__ inline void compress(u32 (&value)[WORDS], const u32 (&message)[16], u64 counter, u32 bytes, u32 flags) {
    u32 m[16];
    for (int i = 0; i < 16; i++) m[i] = message[i];
    u32 s[16] = {value[0],    value[1],    value[2],    value[3],     value[4],         value[5], value[6], value[7],
                 0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, u32(counter), u32(counter >> 32), bytes, flags};
#pragma unroll
    for (int round = 0; round < 7; round++) {
        mix(s[0], s[4], s[8], s[12], m[0], m[1]);
        mix(s[1], s[5], s[9], s[13], m[2], m[3]);
        mix(s[2], s[6], s[10], s[14], m[4], m[5]);
        mix(s[3], s[7], s[11], s[15], m[6], m[7]);
        mix(s[0], s[5], s[10], s[15], m[8], m[9]);
        mix(s[1], s[6], s[11], s[12], m[10], m[11]);
        mix(s[2], s[7], s[8], s[13], m[12], m[13]);
        mix(s[3], s[4], s[9], s[14], m[14], m[15]);
        u32 p[16] = {m[2], m[6], m[3], m[10], m[7], m[0], m[4],  m[13],
                     m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]};
        for (int i = 0; i < 16; i++) m[i] = p[i];
    }
    for (u32 i = 0; i < WORDS; i++) value[i] = s[i] ^ s[i + 8];
}

__device__ inline void begin(u32 (&value)[WORDS]) {
    const u32 initial[WORDS] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    for (u32 i = 0; i < WORDS; i++) value[i] = initial[i];
}

// The chaining value of chunk `index`, of `bytes` bytes; a multiple of 4.
__device__ inline void chunk(u32 (&value)[WORDS], const u32* words, u32 bytes, u64 index, u32 root) {
    begin(value);
    u32 blocks = bytes == 0 ? 1 : (bytes + BLOCK - 1) / BLOCK;
    for (u32 b = 0; b < blocks; b++) {
        u32 there = bytes - b * BLOCK < BLOCK ? bytes - b * BLOCK : BLOCK;
        u32 message[16];
        if (there == BLOCK) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint4 four = reinterpret_cast<const uint4*>(words + b * 16)[i];
                message[4 * i] = four.x, message[4 * i + 1] = four.y;
                message[4 * i + 2] = four.z, message[4 * i + 3] = four.w;
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < 16; i++) message[i] = 4 * i < there ? words[b * 16 + i] : 0;
        }
        u32 flags = (b == 0 ? CHUNK_START : 0) | (b + 1 == blocks ? CHUNK_END | root : 0);
        compress(value, message, index, there, flags);
    }
}

// digests[piece] = BLAKE3 of the piece: `size` bytes of its stretch, or those that are left of it. Stretches come by their
// first pieces and hold multiples of 4 bytes; size is a multiple of 1 KiB, at most 1 MiB. The grid has one block along y
// and z. Dynamic shared memory: 32 bytes a chunk.
extern "C" __global__ void __launch_bounds__(256) digest_pieces(
    const Stretch* stretches, u32 count, u32 size, u32* digests) {
    u32(*values)[WORDS] = reinterpret_cast<u32(*)[WORDS]>(dynamic_shared());
    u32 own = 0;
    for (u32 end = count; end - own > 1;) {
        u32 middle = own + (end - own) / 2;
        if (stretches[middle].first <= blockIdx.x) own = middle;
        else end = middle;
    }
    Stretch stretch = stretches[own];
    u64 first = (blockIdx.x - stretch.first) * size;
    const u32* data = reinterpret_cast<const u32*>(stretch.address + first);
    u32 bytes = u32(stretch.bytes - first < size ? stretch.bytes - first : size);
    u32 nodes = bytes == 0 ? 1 : (bytes + CHUNK - 1) / CHUNK;
    u32 value[WORDS];
    for (u32 i = threadIdx.x; i < nodes; i += blockDim.x) {
        u32 there = bytes - i * CHUNK < CHUNK ? bytes - i * CHUNK : CHUNK;
        chunk(value, data + i * (CHUNK / 4), there, i, nodes == 1 ? ROOT : 0);
        for (u32 w = 0; w < WORDS; w++) values[i][w] = value[w];
    }
    __syncthreads();
    // Neighbours become parents; one that is left over goes up as it is. A thread writes where nobody else reads only
    // after all have read.
    while (nodes > 1) {
        u32 parents = nodes / 2;
        for (u32 start = 0; start < parents; start += blockDim.x) {
            u32 i = start + threadIdx.x;
            if (i < parents) {
                u32 message[16];
                for (u32 w = 0; w < 16; w++) message[w] = values[2 * i + w / WORDS][w % WORDS];
                begin(value);
                compress(value, message, 0, BLOCK, PARENT | (nodes == 2 ? ROOT : 0));
            }
            __syncthreads();
            if (i < parents) {
                for (u32 w = 0; w < WORDS; w++) values[i][w] = value[w];
            }
            __syncthreads();
        }
        if (nodes % 2 == 1) {
            if (threadIdx.x < WORDS) values[parents][threadIdx.x] = values[nodes - 1][threadIdx.x];
            __syncthreads();
        }
        nodes = parents + nodes % 2;
    }
    if (threadIdx.x < WORDS) digests[u64(blockIdx.x) * WORDS + threadIdx.x] = values[0][threadIdx.x];
}
