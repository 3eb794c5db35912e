// The functions of the product's ptx.cuh, for the processor: the same names, the same bits, fragments laid out as the PTX
// manual says. Included after the types of types.cuh.
//
// Sums of `mma` are taken in double, k ascending, and rounded once together with d: a card rounds otherwise, in ways that
// NVIDIA does not state, and so gives other last bits.
#pragma once

inline u32 shared_address(const void* shared) { return u32(static_cast<const u8*>(shared) - emu_self->shared); }

// The nearest bf16, ties to even; a NaN gives 0x7fff.
inline u16 bf16_bits(float x) {
    if (x != x) return 0x7fff;
    u32 bits = __float_as_uint(x);
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline u32 bf16x2_bits(float low, float high) { return u32(bf16_bits(low)) | u32(bf16_bits(high)) << 16; }

// The nearest code with `mantissa` bits behind the point, ties to even, saturating; a NaN gives 0x7f.
inline u8 emu_fp8(float x, int mantissa, int lowest_exponent, u8 largest) {
    if (x != x) return 0x7f;
    u8 sign = __float_as_uint(x) >> 24 & 0x80;
    int exponent = int(__float_as_uint(x) >> 23 & 0xff) - 127;
    if (exponent < lowest_exponent) exponent = lowest_exponent;
    // In units of the last place. Codes count on from one binade to the next; subnormal codes lie in the lowest one.
    double units = rint(ldexp(fabs(double(x)), mantissa - exponent));
    double code = units + double((exponent - lowest_exponent) << mantissa);
    return sign | (code > largest ? largest : u8(code));
}
inline u8 emu_e4m3(float x) { return emu_fp8(x, 3, -6, 0x7e); }
inline u8 emu_e5m2(float x) { return emu_fp8(x, 2, -14, 0x7b); }
inline u16 e4m3x2_bits(float low, float high) { return u16(emu_e4m3(low) | emu_e4m3(high) << 8); }
inline u16 e5m2x2_bits(float low, float high) { return u16(emu_e5m2(low) | emu_e5m2(high) << 8); }

// The larger of two bf16, and again of those in the high halves. A NaN is passed over, or wins if NAN.
template <bool NAN> u32 emu_bf16_max(u32 x, u32 y) {
    float a = __uint_as_float(x << 16), b = __uint_as_float(y << 16);
    if (a != a || b != b) return NAN || (a != a && b != b) ? 0x7fff : a != a ? y : x;
    // Of two zeros the positive one is the larger.
    return a > b ? x : a < b ? y : x & y;
}
template <bool NAN> u32 bf16x2_max(u32 x, u32 y) {
    return emu_bf16_max<NAN>(x & 0xffff, y & 0xffff) | emu_bf16_max<NAN>(x >> 16, y >> 16) << 16;
}

// Raises the number in memory.
inline void raise_to(u32* at, u32 x) { atomicMax(at, x); }

// 2^x; subnormal results are zero.
inline float exp2_fast(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

inline u8* dynamic_shared() { return emu_self->shared; }

inline float4 load_last(const float* at) { return *reinterpret_cast<const float4*>(at); }

// A copy is done when this thread waits for its group, never earlier.
inline void copy_async_16(void* shared, const void* global, bool valid) { emu_host->copy_async(shared, global, valid); }
inline void copy_async_commit() { emu_host->copy_commit(); }
template <int N> inline void copy_async_wait() { emu_host->copy_wait(N); }

struct EmuMatrices {
    const void* row;
    u32 out[4];
};
template <bool TRANS> void emu_ldmatrix(void* const* slots, u32 present) {
    if (present != 0xffffffffu) emu_host->fail("ldmatrix without all lanes of the warp");
    for (int lane = 0; lane < 32; lane++) {
        const void* row = static_cast<EmuMatrices*>(slots[lane])->row;
        if (u64(row) % 16 || !emu_host->is_shared(row, 16)) emu_host->fail("ldmatrix of a row that is not 16 aligned bytes of shared memory");
    }
    for (int lane = 0; lane < 32; lane++)
        for (int m = 0; m < 4; m++) {
            u32 word = 0;
            for (int i = 0; i < 2; i++) {
                int line = TRANS ? 2 * (lane % 4) + i : lane / 4;
                int column = TRANS ? lane / 4 : 2 * (lane % 4) + i;
                const u16* row = static_cast<const u16*>(static_cast<EmuMatrices*>(slots[8 * m + line])->row);
                word |= u32(row[column]) << (16 * i);
            }
            static_cast<EmuMatrices*>(slots[lane])->out[m] = word;
        }
}
template <bool TRANS> void emu_ldmatrix_of(u32 (&r)[4], const void* row) {
    EmuMatrices slot{row, {}};
    emu_host->warp(0xffffffffu, emu_ldmatrix<TRANS>, &slot, TRANS ? "ldmatrix.trans" : "ldmatrix", 0);
    for (int m = 0; m < 4; m++) r[m] = slot.out[m];
}
inline void ldmatrix_x4(u32 (&r)[4], const void* row) { emu_ldmatrix_of<false>(r, row); }
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) { emu_ldmatrix_of<true>(r, row); }

// Elements of fragments, widened exactly.
struct EmuBf16 {
    typedef u16 bits;
    static float of(u16 x) { return __uint_as_float(u32(x) << 16); }
};
inline float emu_magnitude(u8 code, int mantissa, int bias) {
    int exponent = code >> mantissa, fraction = code & ((1 << mantissa) - 1);
    return exponent ? ldexpf(float((1 << mantissa) + fraction), exponent - bias - mantissa)
                    : ldexpf(float(fraction), 1 - bias - mantissa);
}
struct EmuE4m3 {
    typedef u8 bits;
    static float of(u8 x) {
        u8 code = x & 0x7f;
        float y = code == 0x7f ? __builtin_nanf("") : emu_magnitude(code, 3, 7);
        return x & 0x80 ? -y : y;
    }
};
struct EmuE5m2 {
    typedef u8 bits;
    static float of(u8 x) {
        u8 code = x & 0x7f;
        float y = code > 0x7c ? __builtin_nanf("") : code == 0x7c ? __builtin_inff() : emu_magnitude(code, 2, 15);
        return x & 0x80 ? -y : y;
    }
};

struct EmuProduct {
    float d[4];
    u32 a[4], b[2];
};
// A word holds W elements along k. With g = lane / 4 and t = lane % 4, the words of a are rows g, g + 8, g, g + 8, from
// k = W t on and, for the last two, from 4 W + W t; those of b are column g at the same k; d is rows g and g + 8, columns
// 2 t and 2 t + 1.
template <class A, class B> void emu_mma(void* const* slots, u32 present) {
    if (present != 0xffffffffu) emu_host->fail("mma without all lanes of the warp");
    const int W = 4 / sizeof(typename A::bits), K = 8 * W;
    float a[16][K], b[8][K];
    for (int lane = 0; lane < 32; lane++) {
        EmuProduct* slot = static_cast<EmuProduct*>(slots[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < W; i++) {
            int shift = 32 / W * i;
            for (int word = 0; word < 4; word++)
                a[g + word % 2 * 8][word / 2 * 4 * W + W * t + i] = A::of(typename A::bits(slot->a[word] >> shift));
            for (int word = 0; word < 2; word++)
                b[g][word * 4 * W + W * t + i] = B::of(typename B::bits(slot->b[word] >> shift));
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        EmuProduct* slot = static_cast<EmuProduct*>(slots[lane]);
        for (int i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
            double sum = 0.0;
            for (int k = 0; k < K; k++) sum += double(row[k]) * double(column[k]);
            slot->d[i] = float(double(slot->d[i]) + sum);
        }
    }
}
template <class A, class B> void emu_mma_of(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    EmuProduct slot{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emu_host->warp(0xffffffffu, emu_mma<A, B>, &slot, "mma", 0);
    for (int i = 0; i < 4; i++) d[i] = slot.d[i];
}
#define EMU_MMA(name, A, B)                                                                                            \
    inline void name(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { emu_mma_of<A, B>(d, a, b0, b1); }
EMU_MMA(mma_bf16, EmuBf16, EmuBf16)
EMU_MMA(mma_e4m3_e4m3, EmuE4m3, EmuE4m3)
EMU_MMA(mma_e4m3_e5m2, EmuE4m3, EmuE5m2)
EMU_MMA(mma_e5m2_e4m3, EmuE5m2, EmuE4m3)
#undef EMU_MMA
