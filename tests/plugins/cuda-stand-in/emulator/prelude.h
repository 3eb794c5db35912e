// What CUDA C has and C++ has not: the words, the vector types, the built-in functions. No header is included, as NVRTC
// includes none. Threads are fibers of the emulated driver; `emu_host` is how a kernel calls it.
#pragma once

#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __builtin_assume(x) ((void)0)

typedef unsigned long size_t;
typedef unsigned int emu_u32;
typedef unsigned long long emu_u64;

// Vector types, aligned as on the card.
#define EMU_VECTORS(type, base, a2, a4)                                                                                \
    struct type##1 { base x; };                                                                                        \
    struct __align__(a2) type##2 { base x, y; };                                                                       \
    struct type##3 { base x, y, z; };                                                                                  \
    struct __align__(a4) type##4 { base x, y, z, w; };                                                                 \
    inline type##1 make_##type##1(base x) { return {x}; }                                                              \
    inline type##2 make_##type##2(base x, base y) { return {x, y}; }                                                   \
    inline type##3 make_##type##3(base x, base y, base z) { return {x, y, z}; }                                        \
    inline type##4 make_##type##4(base x, base y, base z, base w) { return {x, y, z, w}; }
EMU_VECTORS(char, signed char, 2, 4)
EMU_VECTORS(uchar, unsigned char, 2, 4)
EMU_VECTORS(short, short, 4, 8)
EMU_VECTORS(ushort, unsigned short, 4, 8)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(uint, unsigned int, 8, 16)
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(longlong, long long, 16, 16)
EMU_VECTORS(ulonglong, unsigned long long, 16, 16)
EMU_VECTORS(double, double, 16, 16)
#undef EMU_VECTORS

// What the driver knows of a thread, and what it does for one. Both are mirrored in `block.rs`.
struct EmuThread {
    uint3 thread, block, block_dim, grid_dim;
    emu_u32 lane;
    unsigned char* shared;
};
typedef void (*EmuCombine)(void* const* slots, emu_u32 present);
struct EmuHost {
    int (*barrier)(int kind, int value, const char* file, int line);
    void (*warp)(emu_u32 mask, EmuCombine combine, void* slot, const char* file, int line);
    emu_u32 (*active)();
    void (*copy_async)(void* shared, const void* global, int valid);
    void (*copy_commit)();
    void (*copy_wait)(int most);
    int (*is_shared)(const void* at, size_t bytes);
    void (*fail)(const char* what);
};
extern "C" {
#define EMU_SEEN __attribute__((visibility("default")))
EMU_SEEN const EmuHost* emu_host;
EMU_SEEN thread_local const EmuThread* emu_self;
EMU_SEEN const EmuThread** emu_slot() { return &emu_self; }
}

#define threadIdx (emu_self->thread)
#define blockIdx (emu_self->block)
#define blockDim (emu_self->block_dim)
#define gridDim (emu_self->grid_dim)
#define warpSize 32

// Barriers. Which barrier a thread waits at is told by its line.
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void __syncthreads(EMU_HERE) { emu_host->barrier(0, 0, file, line); }
inline int __syncthreads_or(int value, EMU_HERE) { return emu_host->barrier(1, value, file, line); }
inline int __syncthreads_and(int value, EMU_HERE) { return emu_host->barrier(2, value, file, line); }
inline int __syncthreads_count(int value, EMU_HERE) { return emu_host->barrier(3, value, file, line); }

// Warps: each thread of the mask hands in a slot, the last one combines them all, then all go on.
inline void emu_meet(void* const*, emu_u32) {}
inline void __syncwarp(emu_u32 mask = 0xffffffffu, EMU_HERE) { emu_host->warp(mask, emu_meet, nullptr, file, line); }
inline emu_u32 __activemask() { return emu_host->active(); }

struct EmuVote { int value; emu_u32 ballot; };
inline void emu_vote(void* const* slots, emu_u32 present) {
    emu_u32 ballot = 0;
    for (int i = 0; i < 32; i++)
        if (present >> i & 1 && static_cast<EmuVote*>(slots[i])->value) ballot |= 1u << i;
    for (int i = 0; i < 32; i++)
        if (present >> i & 1) static_cast<EmuVote*>(slots[i])->ballot = ballot;
}
inline emu_u32 __ballot_sync(emu_u32 mask, int value, EMU_HERE) {
    EmuVote vote{value, 0};
    emu_host->warp(mask, emu_vote, &vote, file, line);
    return vote.ballot;
}
inline int __any_sync(emu_u32 mask, int value, EMU_HERE) { return __ballot_sync(mask, value, file, line) != 0; }
inline int __all_sync(emu_u32 mask, int value, EMU_HERE) { return __ballot_sync(mask, !value, file, line) == 0; }

template <class T> struct EmuShuffle { T value, result; int source; };
template <class T> void emu_shuffle(void* const* slots, emu_u32 present) {
    for (int i = 0; i < 32; i++) {
        if (!(present >> i & 1)) continue;
        EmuShuffle<T>* slot = static_cast<EmuShuffle<T>*>(slots[i]);
        if (!(present >> slot->source & 1)) emu_host->fail("a shuffle reads a lane that takes no part in it");
        slot->result = static_cast<EmuShuffle<T>*>(slots[slot->source])->value;
    }
}
template <class T> T emu_shuffled(emu_u32 mask, T value, int source, int width, const char* file, int line) {
    if (width < 1 || width > 32 || (width & (width - 1))) emu_host->fail("the width of a shuffle is no power of two");
    EmuShuffle<T> slot{value, value, source};
    emu_host->warp(mask, emu_shuffle<T>, &slot, file, line);
    return slot.result;
}
template <class T> T __shfl_sync(emu_u32 mask, T value, int source, int width = 32, EMU_HERE) {
    int lane = emu_self->lane;
    return emu_shuffled(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), width, file, line);
}
template <class T> T __shfl_up_sync(emu_u32 mask, T value, unsigned delta, int width = 32, EMU_HERE) {
    int lane = emu_self->lane, source = lane - int(delta);
    return emu_shuffled(mask, value, source < (lane & ~(width - 1)) ? lane : source, width, file, line);
}
template <class T> T __shfl_down_sync(emu_u32 mask, T value, unsigned delta, int width = 32, EMU_HERE) {
    int lane = emu_self->lane, source = lane + int(delta);
    return emu_shuffled(mask, value, source > (lane | (width - 1)) ? lane : source, width, file, line);
}
template <class T> T __shfl_xor_sync(emu_u32 mask, T value, int other, int width = 32, EMU_HERE) {
    int lane = emu_self->lane, source = lane ^ other;
    return emu_shuffled(mask, value, source > (lane | (width - 1)) ? lane : source, width, file, line);
}

// Atomics are real ones: blocks run side by side.
#define EMU_ATOMIC(type)                                                                                               \
    inline type atomicAdd(type* at, type x) { return __atomic_fetch_add(at, x, __ATOMIC_SEQ_CST); }                    \
    inline type atomicSub(type* at, type x) { return __atomic_fetch_sub(at, x, __ATOMIC_SEQ_CST); }                    \
    inline type atomicAnd(type* at, type x) { return __atomic_fetch_and(at, x, __ATOMIC_SEQ_CST); }                    \
    inline type atomicOr(type* at, type x) { return __atomic_fetch_or(at, x, __ATOMIC_SEQ_CST); }                      \
    inline type atomicXor(type* at, type x) { return __atomic_fetch_xor(at, x, __ATOMIC_SEQ_CST); }                    \
    inline type atomicExch(type* at, type x) { return __atomic_exchange_n(at, x, __ATOMIC_SEQ_CST); }                  \
    inline type atomicCAS(type* at, type expected, type x) {                                                           \
        __atomic_compare_exchange_n(at, &expected, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
        return expected;                                                                                               \
    }                                                                                                                  \
    inline type atomicMax(type* at, type x) {                                                                          \
        type old = __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                              \
        while (old < x && !__atomic_compare_exchange_n(at, &old, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}     \
        return old;                                                                                                    \
    }                                                                                                                  \
    inline type atomicMin(type* at, type x) {                                                                          \
        type old = __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                              \
        while (old > x && !__atomic_compare_exchange_n(at, &old, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}     \
        return old;                                                                                                    \
    }
EMU_ATOMIC(int)
EMU_ATOMIC(unsigned)
EMU_ATOMIC(unsigned long long)
#undef EMU_ATOMIC
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __trap() { emu_host->fail("__trap()"); }

// Bits.
template <class To, class From> To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(emu_u64 x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(emu_u64(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    emu_u64 bytes = emu_u64(y) << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = s >> (4 * i) & 0xf, byte = unsigned(bytes >> (8 * (pick & 7))) & 0xff;
        if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
        out |= byte << (8 * i);
    }
    return out;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return unsigned((emu_u64(high) << 32 | low) << (by & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return unsigned((emu_u64(high) << 32 | low) >> (by & 31));
}
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(emu_u64(x) * y >> 32); }
inline int __mulhi(int x, int y) { return int((long long)x * y >> 32); }
inline emu_u64 __umul64hi(emu_u64 x, emu_u64 y) { return emu_u64((unsigned __int128)x * y >> 64); }

// Floats. What the C library rounds otherwise than the card does (expf, logf, ...) is there for arithmetic whose bits are
// not defined.
extern "C" {
float fmaf(float, float, float); float sqrtf(float); float fabsf(float); float floorf(float); float ceilf(float);
float truncf(float); float rintf(float); float nearbyintf(float); float roundf(float); float fmodf(float, float);
float ldexpf(float, int); float copysignf(float, float);
float expf(float); float exp2f(float); float logf(float); float log2f(float); float log1pf(float); float expm1f(float);
float powf(float, float); float sinf(float); float cosf(float); float tanhf(float); float erff(float);
double fma(double, double, double); double sqrt(double); double fabs(double); double floor(double); double ceil(double);
double trunc(double); double rint(double); double exp(double); double exp2(double); double log(double);
double log2(double); double pow(double, double); double ldexp(double, int);
}
// Of two numbers the one that is no NaN; +0 is above -0.
inline float emu_min(float x, float y) {
    if (x != x) return y;
    if (y != y) return x;
    if (x == y) return __uint_as_float(__float_as_uint(x) | __float_as_uint(y));
    return x < y ? x : y;
}
inline float emu_max(float x, float y) {
    if (x != x) return y;
    if (y != y) return x;
    if (x == y) return __uint_as_float(__float_as_uint(x) & __float_as_uint(y));
    return x > y ? x : y;
}
#define fminf emu_min
#define fmaxf emu_max
inline double emu_min(double x, double y) { return x != x ? y : y != y ? x : x < y ? x : y; }
inline double emu_max(double x, double y) { return x != x ? y : y != y ? x : x > y ? x : y; }
#define fmin emu_min
#define fmax emu_max
inline float rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
inline bool isnan(float x) { return x != x; }
inline bool isnan(double x) { return x != x; }
inline bool isinf(float x) { return fabsf(x) == __builtin_inff(); }
inline bool isfinite(float x) { return fabsf(x) < __builtin_inff(); }
inline bool signbit(float x) { return __float_as_uint(x) >> 31; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float x, float y) { return x / y; }
// Conversions saturate, and a NaN gives 0.
template <class I> I emu_saturated(double x) {
    const double end = 2.0 * double(I(1) << (8 * sizeof(I) - 2)) * (I(-1) < I(0) ? 1.0 : 2.0);
    if (x != x) return 0;
    if (x >= end) return I(-1) < I(0) ? I(~0u >> 1) : I(-1);
    if (x <= (I(-1) < I(0) ? -end : 0.0)) return I(-1) < I(0) ? I(1u << 31) : I(0);
    return I(x);
}
inline int __float2int_rn(float x) { return emu_saturated<int>(rintf(x)); }
inline int __float2int_rz(float x) { return emu_saturated<int>(truncf(x)); }
inline int __float2int_rd(float x) { return emu_saturated<int>(floorf(x)); }
inline int __float2int_ru(float x) { return emu_saturated<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return emu_saturated<unsigned>(rintf(x)); }
inline unsigned __float2uint_rz(float x) { return emu_saturated<unsigned>(truncf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

// Order.
#define EMU_ORDER(type)                                                                                                \
    inline type min(type x, type y) { return x < y ? x : y; }                                                          \
    inline type max(type x, type y) { return x > y ? x : y; }
EMU_ORDER(int)
EMU_ORDER(unsigned)
EMU_ORDER(long)
EMU_ORDER(unsigned long)
EMU_ORDER(long long)
EMU_ORDER(unsigned long long)
#undef EMU_ORDER
inline unsigned min(int x, unsigned y) { return min(unsigned(x), y); }
inline unsigned min(unsigned x, int y) { return min(x, unsigned(y)); }
inline unsigned max(int x, unsigned y) { return max(unsigned(x), y); }
inline unsigned max(unsigned x, int y) { return max(x, unsigned(y)); }
inline float min(float x, float y) { return emu_min(x, y); }
inline float max(float x, float y) { return emu_max(x, y); }
inline double min(double x, double y) { return emu_min(x, y); }
inline double max(double x, double y) { return emu_max(x, y); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline long long llabs(long long x) { return x < 0 ? -x : x; }

// Loads and stores with a hint.
template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldca(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldlu(const T* at) { return *at; }
template <class T> void __stcg(T* at, T x) { *at = x; }
template <class T> void __stcs(T* at, T x) { *at = x; }
template <class T> void __stwb(T* at, T x) { *at = x; }
template <class T> void __stwt(T* at, T x) { *at = x; }

// How the driver calls a kernel: each argument by its address.
template <int... I> struct EmuNumbers {};
template <int N, int... I> struct EmuCount : EmuCount<N - 1, N - 1, I...> {};
template <int... I> struct EmuCount<0, I...> { typedef EmuNumbers<I...> type; };
template <class T> struct EmuIsPointer { static const bool value = false; };
template <class T> struct EmuIsPointer<T*> { static const bool value = true; };
template <class F> struct EmuCall;
template <class... A> struct EmuCall<void (*)(A...)> {
    static const unsigned count = sizeof...(A);
    // Bytes of each argument; the highest bit tells a pointer.
    static constexpr unsigned sizes[count + 1] = {(unsigned(sizeof(A)) | unsigned(EmuIsPointer<A>::value) << 31)..., 0};
    template <int... I> static void run(void (*kernel)(A...), void* const* arguments, EmuNumbers<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }
    static void run(void (*kernel)(A...), void* const* arguments) {
        run(kernel, arguments, typename EmuCount<count>::type());
    }
};
struct EmuEntry {
    const char* name;
    void (*run)(void* const* arguments);
    const unsigned* sizes;
    unsigned count;
    int most_threads;
};
constexpr int emu_bounds(int threads, int = 0, int = 0) { return threads; }
