// XXH3 (128 bits, seed 0) of each piece of many tensors: a warp a piece, a load of 256 bytes at a time.
// Specification: fp8flow-tensor's `digest`. Every byte is read once; 16 bytes a piece are written. Memory is the limit:
// four bytes take some six operations, by count less than half of what a Hopper does while it reads them.
// budget: registers 64, spills 0
#include "types.cuh"

// Bytes that go into one accumulator of each of 8 lanes at once, and between two scrambles of them.
const u32 STRIPE = 64;
const u32 BLOCK = 1024;
// A piece of fewer bytes is one of so many, with zeros behind.
const u32 SHORTEST = 256;
// A warp takes four stripes at a time: lane l of it has accumulator l % 8, and of every four stripes number l / 8.
const u32 TEAMS = 4;
const u32 ROUNDS = BLOCK / STRIPE / TEAMS;
const u32 ALL = 0xffffffffu;

const u64 PRIME32_1 = 0x9e3779b1ull, PRIME32_2 = 0x85ebca77ull, PRIME32_3 = 0xc2b2ae3dull;
const u64 PRIME64_1 = 0x9e3779b185ebca87ull, PRIME64_2 = 0xc2b2ae3d27d4eb4full, PRIME64_3 = 0x165667b19e3779f9ull;
const u64 PRIME64_4 = 0x85ebca77c2b2ae63ull, PRIME64_5 = 0x27d4eb2f165667c5ull, PRIME_MIX = 0x165667919e3779f9ull;
__constant__ u64 START[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};

// The 192 bytes that the definition of XXH3 calls its default secret.
__constant__ u64 SECRET[24] = {
    0xbe4ba423396cfeb8ull, 0x1cad21f72c81017cull, 0xdb979083e96dd4deull, 0x1f67b3b7a4a44072ull,
    0x78e5c0cc4ee679cbull, 0x2172ffcc7dd05a82ull, 0x8e2443f7744608b8ull, 0x4c263a81e69035e0ull,
    0xcb00c391bb52283cull, 0xa32e531b8b65d088ull, 0x4ef90da297486471ull, 0xd8acdea946ef1938ull,
    0x3f349ce33f76faa8ull, 0x1d4f0bc7c7bbdcf9ull, 0x3159b4cd4be0518aull, 0x647378d9c97e9fc8ull,
    0xc3ebd33483acc5eaull, 0xeb6313faffa081c5ull, 0x49daf0b751dd0d17ull, 0x9e68d429265516d3ull,
    0xfca1477d58be162bull, 0xce31d07ad1b8f88full, 0x280416958f3acb45ull, 0x7e404bbbcafbd7afull,
};

// Eight bytes of it, from a byte on that no word starts with.
__device__ inline u64 secret_at(u32 byte) {
    u32 bits = byte % 8 * 8;
    return SECRET[byte / 8] >> bits | SECRET[byte / 8 + 1] << (64 - bits);
}

// Consecutive pieces of `size` bytes, the first of which has number `first`.
struct Stretch {
    u64 address, bytes, first;
};

// Eight bytes of a piece, from a multiple of 4 on; zeros behind its end.
__device__ inline u64 word_at(const u32* data, u32 bytes, u32 at) {
    u64 low = at < bytes ? data[at / 4] : 0, high = at + 4 < bytes ? data[at / 4 + 1] : 0;
    return low | high << 32;
}

// What a lane adds up of a block: products into its own accumulator, words into that of its neighbour.
struct Sums {
    u64 products, words;
    __device__ void add(u64 word, u64 key) {
        u64 mixed = word ^ key;
        words += word;
        products += u64(u32(mixed)) * (mixed >> 32);
    }
    // Of all teams, in each of them.
    __device__ u64 together() const {
        u64 sum = products + __shfl_xor_sync(ALL, words, 1);
        sum += __shfl_xor_sync(ALL, sum, 8);
        return sum + __shfl_xor_sync(ALL, sum, 16);
    }
};

// Half of the digest: the accumulators in pairs, multiplied with the secret from `byte` on.
__device__ inline u64 merge(u64 accumulator, u32 lane, u32 byte, u64 start) {
    u64 own = accumulator ^ secret_at(byte + 8 * lane), other = __shfl_xor_sync(ALL, own, 1);
    u64 sum = own * other ^ __umul64hi(own, other);
    sum += __shfl_xor_sync(ALL, sum, 2);
    sum += __shfl_xor_sync(ALL, sum, 4);
    sum += start;
    sum = (sum ^ sum >> 37) * PRIME_MIX;
    return sum ^ sum >> 32;
}

// digests[piece] = XXH3 of the piece: `size` bytes of its stretch, or those that are left of it. Stretches come by their
// first pieces and hold multiples of 4 bytes; size is a multiple of 1 KiB.
extern "C" __global__ void __launch_bounds__(256) digest_pieces(
    const Stretch* stretches, u32 count, u32 size, u32 pieces, u64* digests) {
    u32 piece = u32(thread_index() / 32), lane = threadIdx.x % 8, team = threadIdx.x % 32 / 8;
    if (piece >= pieces) return;
    u32 own = 0;
    for (u32 end = count; end - own > 1;) {
        u32 middle = own + (end - own) / 2;
        if (stretches[middle].first <= piece) own = middle;
        else end = middle;
    }
    Stretch stretch = stretches[own];
    u64 first = (piece - stretch.first) * size;
    const u32* data = reinterpret_cast<const u32*>(stretch.address + first);
    u32 bytes = u32(stretch.bytes - first < size ? stretch.bytes - first : size);
    u32 length = bytes < SHORTEST ? SHORTEST : bytes, blocks = (length - 1) / BLOCK;

    u64 keys[ROUNDS], accumulator = START[lane], scramble = SECRET[16 + lane];
#pragma unroll
    for (u32 r = 0; r < ROUNDS; r++) keys[r] = SECRET[team + r * TEAMS + lane];
    const u64* from = reinterpret_cast<const u64*>(data) + threadIdx.x % 32;
#pragma unroll 2
    for (u32 block = 0; block < blocks; block++) {
        Sums sums = {};
#pragma unroll
        for (u32 r = 0; r < ROUNDS; r++) sums.add(from[r * TEAMS * 8], keys[r]);
        from += BLOCK / 8;
        accumulator += sums.together();
        accumulator = (accumulator ^ accumulator >> 47 ^ scramble) * PRIME32_1;
    }
    // Whole stripes of the block that is left, and the last one again, or what it lacks, with a key of its own.
    Sums sums = {};
    u32 rest = blocks * BLOCK, stripes = (length - 1 - rest) / STRIPE;
#pragma unroll
    for (u32 r = 0; r < ROUNDS; r++) {
        u32 stripe = team + r * TEAMS;
        if (stripe < stripes) sums.add(word_at(data, bytes, rest + stripe * STRIPE + 8 * lane), keys[r]);
    }
    if (team == 0) sums.add(word_at(data, bytes, length - STRIPE + 8 * lane), secret_at(121 + 8 * lane));
    accumulator += sums.together();

    u64 low = merge(accumulator, lane, 11, length * PRIME64_1);
    u64 high = merge(accumulator, lane, 117, ~(length * PRIME64_2));
    if (threadIdx.x % 32 == 0) digests[2 * u64(piece)] = low, digests[2 * u64(piece) + 1] = high;
}
