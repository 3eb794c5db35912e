// Whether VDPBF16PS, the dot product of pairs of bf16, has the bits of two fused multiply-adds, and how fast it is beside
// them. On FP8 codes no operand, product or sum is subnormal (they are multiples of 2^-25 or 0), so its flushing cannot
// show, and what is left to ask is the order and the rounding of its two sums.
//
// cc -O2 -ffp-contract=off -mavx512f -mavx512bf16 -mfma dpbf16.c -o dpbf16 -lm && ./dpbf16

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t state = 88172645463325252u;
static uint32_t any(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// The value of a finite FP8 code with so many bits of exponent; NaN and infinity become 1.
static float decode(uint32_t code, int exponent_bits) {
    int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = code & ((1 << mantissa_bits) - 1);
    if (exponent_bits == 5 ? exponent == 31 : (code & 127) == 127) return 1;
    float x = exponent ? ldexpf((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)
                       : ldexpf(mantissa, 1 - bias - mantissa_bits);
    return code & 128 ? -x : x;
}

static float pair(float sum, const float a[2], const float b[2]) {
    int left = to_bits(a[0]) >> 16 | (to_bits(a[1]) & 0xffff0000u);
    int right = to_bits(b[0]) >> 16 | (to_bits(b[1]) & 0xffff0000u);
    __m512 sums = _mm512_set1_ps(sum);
    sums = _mm512_dpbf16_ps(sums, (__m512bh)_mm512_set1_epi32(left), (__m512bh)_mm512_set1_epi32(right));
    return _mm512_cvtss_f32(sums);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

// Rate of an instruction in 8 sums that do not wait for each other, in GFLOP/s.
#define TO(instruction, sum) instruction " %%zmm0, %%zmm0, %%zmm" #sum "\n\t"
#define RATE(instruction, flops)                                                                                       \
    do {                                                                                                               \
        __asm__ volatile("vzeroall" ::: "xmm0", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");    \
        double began = seconds();                                                                                      \
        for (long i = 0; i < 60000000; i++) {                                                                          \
            __asm__ volatile(TO(instruction, 8) TO(instruction, 9) TO(instruction, 10) TO(instruction, 11)             \
                                 TO(instruction, 12) TO(instruction, 13) TO(instruction, 14) TO(instruction, 15)::     \
                                     : "xmm0", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");  \
        }                                                                                                              \
        printf("%s %6.1f GFLOP/s\n", instruction, 60000000.0 * 8 * flops / (seconds() - began) * 1e-9);               \
    } while (0)

int main(void) {
    long tried = 0, chained = 0, swapped = 0;
    // Of a by its format of FP8, of b likewise: all codes of both, with 64 other pairs and sums each.
    const int formats[3][2] = {{4, 4}, {5, 4}, {4, 5}};
    for (int f = 0; f < 3; f++) {
        float sum = 0;
        for (uint32_t codes = 0; codes < 65536; codes++) {
            for (int again = 0; again < 64; again++) {
                int turn = again & 1;
                float a[2], b[2];
                a[turn] = decode(codes & 255, formats[f][0]), b[turn] = decode(codes >> 8, formats[f][1]);
                a[!turn] = decode(any() & 255, formats[f][0]), b[!turn] = decode(any() & 255, formats[f][1]);
                float found = pair(sum, a, b);
                tried++;
                chained += to_bits(found) == to_bits(fmaf(a[0], b[0], fmaf(a[1], b[1], sum)));
                swapped += to_bits(found) == to_bits(fmaf(a[1], b[1], fmaf(a[0], b[0], sum)));
                // Now a sum that is there, now one of any size between.
                sum = again % 8 ? found : (float)((int32_t)any()) * ldexpf(1, -(int)(any() % 48));
                if (fabsf(sum) < ldexpf(1, -32)) sum = 0;
            }
        }
    }
    printf("%ld of %ld pairs as fma(a0, b0, fma(a1, b1, sum)); as the other order: %ld\n", chained, tried, swapped);
    for (int i = 0; i < 3; i++) {
        RATE("vfmadd231ps", 32);
        RATE("vdpbf16ps", 64);
    }
    return chained != tried;
}
