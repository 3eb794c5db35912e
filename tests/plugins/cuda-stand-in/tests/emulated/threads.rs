//! Threads of a block: barriers, warps, atomics, shared memory.

use crate::rig::{Arg, Rig};

const REVERSE: &str = r#"
extern "C" __global__ void __launch_bounds__(256) reverse(float* x, unsigned n) {
    __shared__ float held[256];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) held[threadIdx.x] = x[i];
    __syncthreads();
    if (i < n) x[i] = held[blockDim.x - 1 - threadIdx.x] * 2.0f;
}
"#;

#[test]
fn a_barrier_orders_shared_memory() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(REVERSE, "reverse");
    let input: Vec<f32> = (0..256 * 40).map(|i| i as f32).collect();
    let x = rig.give(&input);
    assert_eq!(rig.launch(kernel, 40, 256, 0, &[Arg::Pointer(x), Arg::U32(256 * 40)]), 0);
    let output: Vec<f32> = rig.read(x, input.len());
    for (i, y) in output.iter().enumerate() {
        assert_eq!(*y, 2.0 * input[i / 256 * 256 + 255 - i % 256], "{i}");
    }
}

#[test]
fn shuffles_take_the_lanes_that_cuda_says() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
extern "C" __global__ void shuffles(unsigned* out) {
    unsigned t = threadIdx.x, all = 0xffffffffu;
    out[0 * 64 + t] = __shfl_sync(all, t, 3);
    out[1 * 64 + t] = __shfl_sync(all, t, 21, 8);
    out[2 * 64 + t] = __shfl_up_sync(all, t, 2, 16);
    out[3 * 64 + t] = __shfl_down_sync(all, t, 5, 16);
    out[4 * 64 + t] = __shfl_xor_sync(all, t, 9);
    out[5 * 64 + t] = __ballot_sync(all, t % 3 == 0);
    out[6 * 64 + t] = __any_sync(all, t == 40) + 2 * __all_sync(all, t < 32) + 4 * (__activemask() >> t % 32 & 1);
    unsigned half = t % 32 < 16 ? 0xffffu : 0xffff0000u;
    if (t % 32 < 16) out[7 * 64 + t] = __shfl_xor_sync(half, t * 10, 1);
    else out[7 * 64 + t] = __shfl_xor_sync(half, t * 100, 1);
}
"#;
    let kernel = rig.kernel(source, "shuffles");
    let out = rig.alloc(8 * 64 * 4);
    assert_eq!(rig.launch(kernel, 1, 64, 0, &[Arg::Pointer(out)]), 0);
    let out: Vec<u32> = rig.read(out, 8 * 64);
    for t in 0..64_u32 {
        let (warp, lane) = (t / 32 * 32, t % 32);
        let ballot: u32 = (0..32).filter(|l| (warp + l) % 3 == 0).map(|l| 1 << l).sum();
        let other = if lane < 16 { (t ^ 1) * 10 } else { (t ^ 1) * 100 };
        let expected = [
            warp + 3,
            t / 8 * 8 + 5,
            if t % 16 < 2 { t } else { t - 2 },
            if t % 16 > 10 { t } else { t + 5 },
            warp + (lane ^ 9),
            ballot,
            if warp == 32 { 5 } else { 6 },
            other,
        ];
        for (row, expected) in expected.into_iter().enumerate() {
            assert_eq!(out[row * 64 + t as usize], expected, "row {row}, thread {t}");
        }
    }
}

#[test]
fn atomics_are_atomic_across_blocks() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
extern "C" __global__ void count(unsigned* sum, unsigned* top, unsigned long long* wide) {
    atomicAdd(sum, 1u);
    atomicMax(top, blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(wide, 1ull << 32);
    unsigned expected = 0;
    while (atomicCAS(sum + 1, expected, expected + 2) != expected) expected = atomicAdd(sum + 1, 0u);
    int voted = __syncthreads_count(threadIdx.x % 2), any = __syncthreads_or(threadIdx.x == 7);
    if (threadIdx.x == 0) atomicExch(sum + 2, unsigned(voted + 1000 * any));
}
"#;
    let kernel = rig.kernel(source, "count");
    let sums = rig.give(&[0_u32; 3]);
    let (top, wide) = (rig.give(&[0_u32]), rig.give(&[0_u64]));
    let args = [sums, top, wide].map(Arg::Pointer);
    assert_eq!(rig.launch(kernel, 300, 96, 0, &args), 0);
    let threads = 300 * 96;
    let read: Vec<u32> = rig.read(sums, 3);
    assert_eq!(read[..2], [threads, 2 * threads]);
    assert_eq!(read[2], 1048);
    assert_eq!(rig.read::<u32>(top, 1), [threads - 1]);
    assert_eq!(rig.read::<u64>(wide, 1), [u64::from(threads) << 32]);
}

#[test]
fn shared_memory_is_poisoned_for_every_block() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
#include "types.cuh"
extern "C" __global__ void found(u32* out) {
    __shared__ u32 fixed[4];
    u32* dynamic = reinterpret_cast<u32*>(dynamic_shared());
    out[blockIdx.x] = fixed[3] & dynamic[9];
    fixed[3] = 0;
    dynamic[9] = 0;
}
"#;
    let kernel = rig.kernel(source, "found");
    let out = rig.alloc(50 * 4);
    assert_eq!(rig.launch(kernel, 50, 1, 40, &[Arg::Pointer(out)]), 0);
    assert_eq!(rig.read::<u32>(out, 50), [u32::MAX; 50]);
}

#[test]
fn arguments_of_every_size_arrive() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
struct Two { float x; unsigned long long y; };
template <class T> __device__ void put(T* out, Two two, unsigned char c, float f) { *out = two.x + float(two.y) + c + f; }
extern "C" __global__ void take(Two two, unsigned char c, double* out, float f) { put(out, two, c, f); }
"#;
    let kernel = rig.kernel(source, "take");
    let out = rig.alloc(8);
    let two: [u32; 4] = [1.5_f32.to_bits(), 0, 4, 0];
    // A structure goes by its address, as any argument does.
    let places = [
        two.as_ptr().addr(),
        std::ptr::from_ref(&3_u8).addr(),
        (&raw const out).addr(),
        std::ptr::from_ref(&0.25_f32).addr(),
    ];
    let code = crate::rig::call!(rig, cuLaunchKernel(
        kernel => usize, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 0 => u32,
        rig.stream => usize, places.as_ptr() => *const usize, 0 => usize,
    ));
    assert_eq!(code, 0);
    assert_eq!(rig.read::<f64>(out, 1), [8.75]);
}

#[test]
fn floats_have_the_bits_of_ieee() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
extern "C" __global__ void floats(const float* x, float* out, unsigned n) {
    unsigned i = threadIdx.x;
    float a = x[i], b = x[(i + 1) % n];
    out[i] = a * b + a;
    out[n + i] = fmaf(a, b, a);
    out[2 * n + i] = a / b;
    out[3 * n + i] = sqrtf(fabsf(a));
    out[4 * n + i] = fmaxf(fminf(a, b), -1.0f);
    out[5 * n + i] = __uint_as_float(__float_as_uint(a) ^ 0x80000000u);
}
"#;
    let kernel = rig.kernel(source, "floats");
    let x: Vec<f32> =
        (0..200_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9) & 0xBFFF_FFFF)).collect();
    let n = x.len();
    let (at, out) = (rig.give(&x), rig.alloc(6 * n * 4));
    assert_eq!(
        rig.launch(kernel, 1, n as u32, 0, &[Arg::Pointer(at), Arg::Pointer(out), Arg::U32(n as u32)]),
        0
    );
    let out: Vec<f32> = rig.read(out, 6 * n);
    for i in 0..n {
        let (a, b) = (x[i], x[(i + 1) % n]);
        let expected = [a * b + a, a.mul_add(b, a), a / b, a.abs().sqrt(), a.min(b).max(-1.0), -a];
        for (row, expected) in expected.iter().enumerate() {
            assert_eq!(out[row * n + i].to_bits(), expected.to_bits(), "row {row} of {a} and {b}");
        }
    }
}
