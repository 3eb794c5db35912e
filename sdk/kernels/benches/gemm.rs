//! GFLOP/s of the GEMM beside the peak of the machine's FMA units ("Gitem/s" are GFLOP/s).
//!
//! `cargo bench -p fp8flow-kernels --bench gemm`; compare with a peer in one sitting, on the same number of threads.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fp8flow_kernels::{
    Cpu, Elements, ElementsMut, Epilogue, Grid, Isa, Matrix, Operand, Parallel, Store, bf16, gemm, grid,
    multiversion,
};

fn main() {
    divan::Divan::default().sample_count(7).sample_size(1).config_with_args().main();
}

/// `[m, k, n]`.
const SHAPES: [[usize; 3]; 8] = [
    [64, 64, 64],
    [256, 256, 256],
    [1024, 512, 512],
    [1024, 512, 1408],
    [512, 1024, 1408],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [2048, 1024, 4096],
];

const THREADS: [usize; 2] = [1, 2];

struct Pool(rayon::ThreadPool);

impl Pool {
    fn new(threads: usize) -> Self {
        Self(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"))
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        use rayon::prelude::*;
        self.0.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(body));
    }
}

multiversion! {
    /// Independent sums that fit the registers, nothing but FMA.
    fn sums(steps: usize, x: f32, y: f32) -> f32 {
        let mut sums = [[1.0_f32; 16]; 6];
        for _ in 0..steps {
            for sum in sums.as_flattened_mut() {
                *sum = sum.mul_add(x, y);
            }
        }
        sums.as_flattened().iter().sum()
    }
}

const STEPS: usize = 1_000_000;

/// The peak of one thread.
#[divan::bench]
fn fma_peak(bencher: Bencher<'_, '_>) {
    let flops = 2 * 6 * 16 * STEPS;
    bencher
        .counter(ItemsCount::new(flops))
        .bench(|| sums(Isa::best(), STEPS, black_box(0.5), black_box(0.5)));
}

#[derive(Clone, Copy)]
enum Layout {
    Fprop,
    Dgrad,
    Wgrad,
}

/// The operands of `[m, k, n]`, from elements as a layer has them.
fn operands<'a>([m, k, n]: [usize; 3], a: Elements<'a>, b: Elements<'a>, layout: Layout) -> [Operand<'a>; 2] {
    let a = match layout {
        Layout::Wgrad => Operand::transposed(Matrix::new(a, k, m)),
        _ => Operand::rows(Matrix::new(a, m, k)),
    };
    let b = match layout {
        Layout::Fprop => Operand::rows(Matrix::new(b, n, k)),
        _ => Operand::transposed(Matrix::new(b, k, n)),
    };
    [a, b]
}

fn run(bencher: Bencher<'_, '_>, threads: usize, [a, b]: [Operand<'_>; 2], scales: [Epilogue<'_>; 2]) {
    let pool = Pool::new(threads);
    let cpu = Cpu::new(Isa::from_env().expect("FP8FLOW_ISA"), &pool);
    let mut out = vec![bf16::ZERO; a.rows * b.rows];
    let mut run = || gemm(&cpu, &a, scales[0], &b, scales[1], Store::Overwrite, ElementsMut::Bf16(&mut out));
    // Threads keep their memory from the first call.
    run();
    bencher.counter(ItemsCount::new(2 * a.rows * b.rows * a.depth)).bench_local(run);
}

fn product(
    bencher: Bencher<'_, '_>,
    threads: usize,
    shape: [usize; 3],
    a: Elements<'_>,
    b: Elements<'_>,
    layout: Layout,
) {
    let (by_row, by_col) = (vec![0.5; shape[0]], vec![2.0; shape[2]]);
    let scales = [Epilogue::PerRow(&by_row), Epilogue::PerRow(&by_col)];
    run(bencher, threads, operands(shape, a, b, layout), scales);
}

/// With a factor for each block: `[1, 128]` of activations and gradients along the contraction, `[128, 128]` of weights.
fn product_by_block(
    bencher: Bencher<'_, '_>,
    threads: usize,
    shape: [usize; 3],
    a: Elements<'_>,
    b: Elements<'_>,
    layout: Layout,
) {
    let [m, k, n] = shape;
    let factors = |shape, block| vec![0.5; grid(shape, block).iter().product()];
    let [x, y] = operands(shape, a, b, layout);
    let one = [Epilogue::One; 2];
    match layout {
        Layout::Fprop => {
            let (a, b) = (factors([m, k], [1, 128]), factors([n, k], [128, 128]));
            let x = x.scaled(Grid::rows(&a, [m, k], [1, 128]));
            run(bencher, threads, [x, y.scaled(Grid::rows(&b, [n, k], [128, 128]))], one);
        }
        Layout::Dgrad => {
            let (a, b) = (factors([m, k], [1, 128]), factors([k, n], [128, 128]));
            let x = x.scaled(Grid::rows(&a, [m, k], [1, 128]));
            run(bencher, threads, [x, y.scaled(Grid::transposed(&b, [k, n], [128, 128]))], one);
        }
        Layout::Wgrad => {
            let (a, b) = (factors([k, m], [128, 1]), factors([k, n], [128, 1]));
            let x = x.scaled(Grid::transposed(&a, [k, m], [128, 1]));
            run(bencher, threads, [x, y.scaled(Grid::transposed(&b, [k, n], [128, 1]))], one);
        }
    }
}

fn codes(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 2_654_435_761) >> 7) as u8 & 0xf7).collect()
}

#[divan::bench(args = SHAPES, consts = THREADS)]
fn e4m3<const THREADS: usize>(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product(bencher, THREADS, shape, Elements::E4m3(&a), Elements::E4m3(&b), Layout::Fprop);
}

#[divan::bench(args = SHAPES, consts = THREADS)]
fn e4m3_by_block<const THREADS: usize>(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product_by_block(bencher, THREADS, shape, Elements::E4m3(&a), Elements::E4m3(&b), Layout::Fprop);
}

#[divan::bench(args = SHAPES)]
fn e4m3_by_block_dgrad(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product_by_block(bencher, 1, shape, Elements::E4m3(&a), Elements::E4m3(&b), Layout::Dgrad);
}

#[divan::bench(args = SHAPES)]
fn e4m3_by_block_wgrad(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product_by_block(bencher, 1, shape, Elements::E4m3(&a), Elements::E4m3(&b), Layout::Wgrad);
}

#[divan::bench(args = SHAPES)]
fn e5m2_e4m3_dgrad(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product(bencher, 1, shape, Elements::E5m2(&a), Elements::E4m3(&b), Layout::Dgrad);
}

#[divan::bench(args = SHAPES)]
fn e5m2_e4m3_wgrad(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let (a, b) = (codes(shape[0] * shape[1]), codes(shape[1] * shape[2]));
    product(bencher, 1, shape, Elements::E5m2(&a), Elements::E4m3(&b), Layout::Wgrad);
}

fn floats(len: usize) -> impl Iterator<Item = f32> {
    (0..len).map(|i| (i % 97) as f32 * 0.02 - 0.9)
}

#[divan::bench(args = SHAPES)]
fn bf16_bf16(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let numbers = |len| floats(len).map(bf16::from_f32).collect::<Vec<_>>();
    let (a, b) = (numbers(shape[0] * shape[1]), numbers(shape[1] * shape[2]));
    product(bencher, 1, shape, Elements::Bf16(&a), Elements::Bf16(&b), Layout::Fprop);
}

#[divan::bench(args = SHAPES)]
fn f32_f32(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let numbers = |len| floats(len).collect::<Vec<_>>();
    let (a, b) = (numbers(shape[0] * shape[1]), numbers(shape[1] * shape[2]));
    product(bencher, 1, shape, Elements::F32(&a), Elements::F32(&b), Layout::Fprop);
}
