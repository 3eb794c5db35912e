//! The instructions of `ptx.cuh`: conversions, asynchronous copies, `ldmatrix`, `mma`.

use fp8flow_kernels::Fp8;

use crate::rig::{Arg, Rig};

/// Numbers that are told apart, small enough for exact sums.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as f32 - 8.0
    };
    (0..n).map(|_| next()).collect()
}

fn bf16(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

#[test]
fn conversions_have_the_bits_of_the_cpu() {
    let Some(rig) = Rig::take() else { return };
    let source = r#"
#include "types.cuh"
extern "C" __global__ void convert(const float* x, u16* bf, u16* e4m3, u16* e5m2, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    bf[i] = bf16_bits(x[i]);
    e4m3[i] = e4m3x2_bits(x[i], -x[i]);
    e5m2[i] = e5m2x2_bits(x[i], -x[i]);
}
"#;
    let kernel = rig.kernel(source, "convert");
    // Every sixteenth upper half, with lower halves that are ties, just below and just above.
    let lower = [0_u32, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
    let upper = (0..0x8000_u32).step_by(3);
    let mut x: Vec<f32> = upper.flat_map(|high| lower.map(|low| f32::from_bits(high << 16 | low))).collect();
    for code in 0..=255_u8 {
        for format in [Fp8::E4m3, Fp8::E5m2] {
            let y = format.decode(code);
            x.extend([
                y,
                f32::from_bits(y.to_bits().wrapping_add(1)),
                f32::from_bits(y.to_bits().wrapping_sub(1)),
                y * 1.0625,
                y * 1.125,
            ]);
        }
    }
    let n = x.len();
    let at = rig.give(&x);
    let outs = [0; 3].map(|_| rig.alloc(2 * n));
    let args = [at, outs[0], outs[1], outs[2]].map(Arg::Pointer);
    let args = [&args[..], &[Arg::U32(n as u32)]].concat();
    assert_eq!(rig.launch(kernel, n.div_ceil(256) as u32, 256, 0, &args), 0);
    let [bf, e4m3, e5m2] = outs.map(|out| rig.read::<u16>(out, n));
    for (i, x) in x.iter().enumerate() {
        let expected = if x.is_nan() { 0x7FFF } else { half(*x) };
        assert_eq!(bf[i], expected, "bf16 of {x:e}");
        for (format, codes) in [(Fp8::E4m3, &e4m3), (Fp8::E5m2, &e5m2)] {
            let code = |x: f32| format.encode(x);
            assert_eq!(codes[i], u16::from(code(*x)) | u16::from(code(-x)) << 8, "{format:?} of {x:e}");
        }
    }
}

/// bf16, to nearest, ties to even.
fn half(x: f32) -> u16 {
    let bits = u64::from(x.to_bits());
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

const COPIES: &str = r#"
#include "types.cuh"
extern "C" __global__ void copies(const float* x, float* out, u32 n) {
    float* held = reinterpret_cast<float*>(dynamic_shared());
    u32 t = threadIdx.x;
    copy_async_16(held + 4 * t, x + 4 * t, 4 * t < n);
    copy_async_commit();
    copy_async_16(held + 128 + 4 * t, x + 4 * t, true);
    copy_async_commit();
    copy_async_wait<1>();
    for (int i = 0; i < 4; i++) out[4 * t + i] = held[4 * t + i];
    out[128 + t] = held[128 + 4 * t];
    copy_async_wait<0>();
    out[160 + t] = held[128 + 4 * t];
}
"#;

#[test]
fn asynchronous_copies_are_there_when_they_were_waited_for_and_not_before() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(COPIES, "copies");
    let x = numbers(128, 1);
    let (at, out) = (rig.give(&x), rig.alloc(192 * 4));
    assert_eq!(rig.launch(kernel, 1, 32, 1024, &[Arg::Pointer(at), Arg::Pointer(out), Arg::U32(64)]), 0);
    let out: Vec<f32> = rig.read(out, 192);
    for i in 0..128 {
        assert_eq!(out[i], if i < 64 { x[i] } else { 0.0 }, "{i}");
    }
    for t in 0..32 {
        assert!(out[128 + t].is_nan(), "not waited for, but there");
        assert_eq!(out[160 + t], x[4 * t]);
    }
}

/// a (16 x 16, rows along k) from shared memory by `ldmatrix`, b (8 columns of 16) from the rows of its transpose and,
/// once more, by `ldmatrix.trans` from b with rows along n.
const BF16: &str = r#"
#include "types.cuh"
extern "C" __global__ void multiply(const u16* a, const u16* b, const u16* b_rows, float* d) {
    __shared__ __align__(16) u16 a_held[16 * 16], b_held[16 * 16], b_rows_held[32 * 8];
    u32 lane = threadIdx.x;
    for (u32 i = lane; i < 256; i += 32) a_held[i] = a[i];
    for (u32 i = lane; i < 256; i += 32) b_held[i] = i < 128 ? b[i] : 0;
    for (u32 i = lane; i < 256; i += 32) b_rows_held[i] = i < 128 ? b_rows[i] : 0;
    __syncwarp();
    u32 words[4], columns[4], turned[4];
    ldmatrix_x4(words, a_held + (lane % 16) * 16 + lane / 16 * 8);
    ldmatrix_x4(columns, b_held + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    ldmatrix_x4_trans(turned, b_rows_held + lane * 8);
    float sums[4] = {1.0f, 2.0f, 3.0f, 4.0f}, again[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    mma_bf16(sums, words, columns[0], columns[1]);
    mma_bf16(again, words, turned[0], turned[1]);
    for (int i = 0; i < 4; i++) {
        u32 place = (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2;
        d[place] = sums[i];
        d[128 + place] = again[i];
    }
}
"#;

#[test]
fn a_product_in_bf16_is_that_of_a_plain_loop() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(BF16, "multiply");
    let (a, b) = (numbers(16 * 16, 2), numbers(8 * 16, 3));
    let rows: Vec<f32> = (0..128).map(|i| b[i % 8 * 16 + i / 8]).collect();
    let give = |x: &[f32]| Arg::Pointer(rig.give(&x.iter().copied().map(bf16).collect::<Vec<u16>>()));
    let d = rig.alloc(256 * 4);
    assert_eq!(rig.launch(kernel, 1, 32, 0, &[give(&a), give(&b), give(&rows), Arg::Pointer(d)]), 0);
    let d: Vec<f32> = rig.read(d, 256);
    for (m, n) in (0..16).flat_map(|m| (0..8).map(move |n| (m, n))) {
        let sum: f32 = (0..16).map(|k| a[m * 16 + k] * b[n * 16 + k]).sum();
        let start = 1 + n % 2 + m / 8 * 2;
        assert_eq!(d[m * 8 + n], sum + start as f32, "row {m}, column {n}");
        assert_eq!(d[128 + m * 8 + n], sum + start as f32, "row {m}, column {n}, turned");
    }
}

#[test]
fn a_product_in_fp8_is_that_of_a_plain_loop() {
    let Some(rig) = Rig::take() else { return };
    for (name, of_a, of_b) in [
        ("mma_e4m3_e4m3", Fp8::E4m3, Fp8::E4m3),
        ("mma_e4m3_e5m2", Fp8::E4m3, Fp8::E5m2),
        ("mma_e5m2_e4m3", Fp8::E5m2, Fp8::E4m3),
    ] {
        // Lane (g, t) reads words 4 t of rows g and g + 8, and 16 bytes further.
        let source = r#"
#include "types.cuh"
extern "C" __global__ void multiply(const u32* a, const u32* b, float* d) {
    u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 words[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
    float sums[4] = {};
    MMA(sums, words, b[g * 8 + t], b[g * 8 + t + 4]);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}
"#;
        let kernel = rig.kernel(&source.replace("MMA", name), "multiply");
        let codes = |n, seed, format: Fp8| -> Vec<u8> {
            numbers(n, seed).iter().map(|x| format.encode(*x * 0.5)).collect()
        };
        let (a, b) = (codes(16 * 32, 4, of_a), codes(8 * 32, 5, of_b));
        let d = rig.alloc(128 * 4);
        assert_eq!(rig.launch(kernel, 1, 32, 0, &[rig.give(&a), rig.give(&b), d].map(Arg::Pointer)), 0);
        let d: Vec<f32> = rig.read(d, 128);
        for (m, n) in (0..16).flat_map(|m| (0..8).map(move |n| (m, n))) {
            let sum: f32 = (0..32).map(|k| of_a.decode(a[m * 32 + k]) * of_b.decode(b[n * 32 + k])).sum();
            assert_eq!(d[m * 8 + n], sum, "{name}, row {m}, column {n}");
        }
    }
}
