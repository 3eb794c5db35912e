// Instructions that CUDA C has no words for. All inline PTX is here, but for what only Hopper has (wgmma.cuh).
#pragma once

__device__ inline u32 shared_address(const void* shared) { return u32(__cvta_generic_to_shared(shared)); }

// The nearest bf16, ties to even; a NaN gives 0x7fff.
__device__ inline u16 bf16_bits(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Two of them, `low` in the low half.
__device__ inline u32 bf16x2_bits(float low, float high) {
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

// Two codes, nearest, ties to even, saturating, `low` in the low byte; a NaN gives 0x7f.
__device__ inline u16 e4m3x2_bits(float low, float high) {
    u16 codes;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
    return codes;
}
__device__ inline u16 e5m2x2_bits(float low, float high) {
    u16 codes;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
    return codes;
}

// The larger of two bf16, and again of those in the high halves. A NaN is passed over, or wins if NAN.
template <bool NAN> __device__ inline u32 bf16x2_max(u32 x, u32 y) {
    u32 most;
    if constexpr (NAN) {
        asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(most) : "r"(x), "r"(y));
    } else {
        asm("max.bf16x2 %0, %1, %2;" : "=r"(most) : "r"(x), "r"(y));
    }
    return most;
}

// Raises the number in memory; unlike with atomicMax, nobody waits for what was there.
__device__ inline void raise_to(u32* at, u32 x) {
    asm volatile("red.relaxed.gpu.global.max.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(x) : "memory");
}

// 2^x, within 2 units in the last place; subnormal results are zero.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 16 bytes that nobody reads again soon: they are the first to leave the caches.
__device__ inline float4 load_last(const float* at) {
    float4 x;
    asm("ld.global.cs.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(at));
    return x;
}

// The block's dynamic shared memory.
__device__ inline u8* dynamic_shared() {
    extern __shared__ __align__(1024) u8 memory[];
    return memory;
}

// Copies 16 bytes to shared memory on the side, past the registers and L1; zeros if not `valid`.
__device__ inline void copy_async_16(void* shared, const void* global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}
// Closes the group of copies asked for since the last one.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread are under way.
template <int N> __device__ inline void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8x8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a * b with f32 sums: a is 16 x K, b is K x 8, in the fragments of `mma.sync`.
#define MMA(name, shape, types)                                                                                        \
    __device__ inline void name(float(&d)[4], const u32(&a)[4], u32 b0, u32 b1) {                                      \
        asm ("mma.sync.aligned." shape ".row.col.f32." types ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "       \
                     "{%8, %9}, {%0, %1, %2, %3};"                                                                     \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                  \
    }
MMA(mma_bf16, "m16n8k16", "bf16.bf16")
MMA(mma_e4m3_e4m3, "m16n8k32", "e4m3.e4m3")
MMA(mma_e4m3_e5m2, "m16n8k32", "e4m3.e5m2")
MMA(mma_e5m2_e4m3, "m16n8k32", "e5m2.e4m3")
#undef MMA
