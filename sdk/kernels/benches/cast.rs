//! GB/s of the casts: bytes read, as if once, and codes written.
//!
//! `cargo bench -p fp8flow-kernels --bench cast`; compare with a peer in one sitting.

use divan::Bencher;
use divan::counter::BytesCount;
use fp8flow_kernels::cast::{
    CastStats, Quantized, amax_ignoring_nan, amax_of, cast_blocks, cast_cols, cast_row_and_col_blocks,
    cast_rows, cast_rows_and_cols, cast_tensor, cast_tensor_with_amax,
};
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_kernels::{Cpu, Elements, Fp8, Isa, Matrix, Serial, bf16, grid};

fn main() {
    divan::Divan::default().sample_count(15).sample_size(1).config_with_args().main();
}

/// `[m, k]`.
const SHAPES: [[usize; 2]; 4] = [[1024, 512], [1024, 1024], [2048, 1024], [2048, 2048]];

const RULE: ScaleRule = ScaleRule::PowerOfTwo;

const BLOCK_RULE: ScaleRule = ScaleRule::FinitePowerOfTwo;

fn cpu() -> Cpu<'static> {
    Cpu::new(Isa::from_env().expect("FP8FLOW_ISA"), &Serial)
}

fn numbers([m, k]: [usize; 2]) -> Vec<f32> {
    (0..m * k).map(|i| (i % 1009) as f32 * 0.01 - 5.0).collect()
}

fn halves(shape: [usize; 2]) -> Vec<bf16> {
    numbers(shape).into_iter().map(bf16::from_f32).collect()
}

fn outputs([m, k]: [usize; 2]) -> (Vec<u8>, Vec<f32>) {
    (vec![0; m * k], vec![0.0; m.max(k)])
}

#[divan::bench(args = SHAPES)]
fn bf16_by_row(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, (mut codes, mut scales)) = (halves([m, k]), outputs([m, k]));
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(3 * m * k)).bench_local(|| {
        let out = Quantized { codes: &mut codes, scales: &mut scales[..m] };
        cast_rows(&cpu(), x, Fp8::E4m3, RULE, out, None);
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_by_row_counted(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, (mut codes, mut scales)) = (halves([m, k]), outputs([m, k]));
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(3 * m * k)).bench_local(|| {
        let mut stats = CastStats::default();
        let out = Quantized { codes: &mut codes, scales: &mut scales[..m] };
        cast_rows(&cpu(), x, Fp8::E4m3, RULE, out, Some(&mut stats));
        stats
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_by_col(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, (mut codes, mut scales)) = (halves([m, k]), outputs([m, k]));
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(3 * m * k)).bench_local(|| {
        let out = Quantized { codes: &mut codes, scales: &mut scales[..k] };
        cast_cols(&cpu(), x, Fp8::E4m3, RULE, out, None);
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_by_row_and_col(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, (mut codes, mut scales)) = (halves([m, k]), outputs([m, k]));
    let (mut more_codes, mut more_scales) = outputs([m, k]);
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(4 * m * k)).bench_local(|| {
        let by_row = Quantized { codes: &mut codes, scales: &mut scales[..m] };
        let by_col = Quantized { codes: &mut more_codes, scales: &mut more_scales[..k] };
        cast_rows_and_cols(&cpu(), x, Fp8::E4m3, RULE, by_row, by_col, None);
    });
}

fn bf16_by_block(bencher: Bencher<'_, '_>, shape: [usize; 2], block: [usize; 2]) {
    let (x, mut codes) = (halves(shape), vec![0; shape[0] * shape[1]]);
    let mut scales = vec![0.0; grid(shape, block).iter().product()];
    let x = Matrix::new(Elements::Bf16(&x), shape[0], shape[1]);
    bencher.counter(BytesCount::new(3 * shape[0] * shape[1])).bench_local(|| {
        let out = Quantized { codes: &mut codes, scales: &mut scales };
        cast_blocks(&cpu(), x, Fp8::E4m3, BLOCK_RULE, block, out, None);
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_by_block_1x128(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    bf16_by_block(bencher, shape, [1, 128]);
}

#[divan::bench(args = SHAPES)]
fn bf16_by_block_1x32(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    bf16_by_block(bencher, shape, [1, 32]);
}

#[divan::bench(args = SHAPES)]
fn bf16_by_block_128x1(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    bf16_by_block(bencher, shape, [128, 1]);
}

#[divan::bench(args = SHAPES)]
fn bf16_by_block_128x128(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    bf16_by_block(bencher, shape, [128, 128]);
}

#[divan::bench(args = SHAPES)]
fn bf16_by_block_1x128_and_128x1(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    let x = halves(shape);
    let mut codes = [(); 2].map(|()| vec![0; shape[0] * shape[1]]);
    let mut scales = [[1, 128], [128, 1]].map(|block| vec![0.0; grid(shape, block).iter().product()]);
    let x = Matrix::new(Elements::Bf16(&x), shape[0], shape[1]);
    bencher.counter(BytesCount::new(4 * shape[0] * shape[1])).bench_local(|| {
        let ([by_row, by_col], [row_scales, col_scales]) = (&mut codes, &mut scales);
        let by_row = Quantized { codes: by_row, scales: row_scales };
        let by_col = Quantized { codes: by_col, scales: col_scales };
        cast_row_and_col_blocks(&cpu(), x, Fp8::E4m3, BLOCK_RULE, 128, by_row, by_col, None);
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_by_tensor(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, mut codes) = (halves([m, k]), vec![0; m * k]);
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    let bencher = bencher.counter(BytesCount::new(3 * m * k));
    bencher.bench_local(|| cast_tensor(&cpu(), x, Fp8::E4m3, 64.0, &mut codes, None));
}

#[divan::bench(args = SHAPES)]
fn bf16_by_tensor_with_amax(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, mut codes) = (halves([m, k]), vec![0; m * k]);
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    let bencher = bencher.counter(BytesCount::new(3 * m * k));
    bencher.bench_local(|| cast_tensor_with_amax(&cpu(), x, Fp8::E4m3, 64.0, &mut codes, None));
}

#[divan::bench(args = SHAPES)]
fn f32_by_row(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let (x, (mut codes, mut scales)) = (numbers([m, k]), outputs([m, k]));
    let x = Matrix::new(Elements::F32(&x), m, k);
    bencher.counter(BytesCount::new(5 * m * k)).bench_local(|| {
        let out = Quantized { codes: &mut codes, scales: &mut scales[..m] };
        cast_rows(&cpu(), x, Fp8::E4m3, RULE, out, None);
    });
}

#[divan::bench(args = SHAPES)]
fn bf16_amax(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let x = halves([m, k]);
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(2 * m * k)).bench_local(|| amax_of(&cpu(), x));
}

#[divan::bench(args = SHAPES)]
fn bf16_amax_ignoring_nan(bencher: Bencher<'_, '_>, [m, k]: [usize; 2]) {
    let x = halves([m, k]);
    let x = Matrix::new(Elements::Bf16(&x), m, k);
    bencher.counter(BytesCount::new(2 * m * k)).bench_local(|| amax_ignoring_nan(&cpu(), x));
}
