//! Every path against the specification, bit for bit; the specification against exact arithmetic.

use half::bf16;

use super::*;
use crate::cast::{Quantized, cast_blocks};
use crate::philox::Philox;
use crate::scale::ScaleRule;
use crate::{Fp8, Isa, Parallel, Serial, grid};

/// Some threads for the time of a call.
struct Threads(usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.0 {
                scope.spawn(work);
            }
            work();
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F32,
    Bf16,
    E4m3,
    E5m2,
}

const TYPES: [Type; 4] = [Type::F32, Type::Bf16, Type::E4m3, Type::E5m2];

/// The elements of an operand.
#[derive(Debug)]
enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    E4m3(Vec<u8>),
    E5m2(Vec<u8>),
}

impl Owned {
    /// Reproducible numbers: about normal, or any bits at all.
    fn new(kind: Type, len: usize, stream: u64, wild: bool) -> Self {
        let philox = Philox::new(1, "gemm");
        let value = |i: usize| {
            let words = philox.words(stream, i as u64);
            if wild { f32::from_bits(words[0]) } else { philox.normal_pair(stream, i as u64)[0] }
        };
        let byte = |i: usize| philox.words(stream, i as u64)[1] as u8;
        let codes = |format: Fp8| {
            (0..len).map(|i| if wild { byte(i) } else { format.encode(value(i) * 16.0) }).collect()
        };
        match kind {
            Type::F32 => Self::F32((0..len).map(value).collect()),
            Type::Bf16 => Self::Bf16((0..len).map(|i| bf16::from_f32(value(i))).collect()),
            Type::E4m3 => Self::E4m3(codes(Fp8::E4m3)),
            Type::E5m2 => Self::E5m2(codes(Fp8::E5m2)),
        }
    }

    fn elements(&self) -> Elements<'_> {
        match self {
            Self::F32(x) => Elements::F32(x),
            Self::Bf16(x) => Elements::Bf16(x),
            Self::E4m3(x) => Elements::E4m3(x),
            Self::E5m2(x) => Elements::E5m2(x),
        }
    }

    /// `rows × depth`, lying either way.
    fn operand(&self, rows: usize, depth: usize, transposed: bool) -> Operand<'_> {
        if transposed {
            Operand::transposed(Matrix::new(self.elements(), depth, rows))
        } else {
            Operand::rows(Matrix::new(self.elements(), rows, depth))
        }
    }
}

fn factors(n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.3 + i as f32 * 0.01).collect()
}

/// One product with everything that bears on it.
#[derive(Debug)]
struct Case {
    shape: [usize; 3],
    types: [Type; 2],
    transposed: [bool; 2],
    wild: bool,
    /// 0 none, 1 for the tensor, 2 by row.
    scales: [usize; 2],
    /// Rows and columns of the blocks, as the matrix lies, that have a factor each.
    blocks: [Option<[usize; 2]>; 2],
    /// Whether those factors are powers of two.
    exact: bool,
    store: Store,
    bf16: bool,
}

impl Case {
    fn plain(shape: [usize; 3], types: [Type; 2]) -> Self {
        let store = Store::Overwrite;
        let (transposed, blocks) = ([false; 2], [None; 2]);
        Self { shape, types, transposed, wild: false, scales: [2, 2], blocks, exact: true, store, bf16: true }
    }

    /// Rows and columns of a side's matrix, as it lies.
    fn lying(&self, rows: usize, side: usize) -> [usize; 2] {
        if self.transposed[side] { [self.shape[1], rows] } else { [rows, self.shape[1]] }
    }

    /// A factor for each block of a side.
    fn factors(&self, rows: usize, side: usize) -> Vec<f32> {
        let Some(block) = self.blocks[side] else { return Vec::new() };
        let [down, across] = grid(self.lying(rows, side), block);
        let philox = Philox::new(2, "factors");
        let factor = |i: usize| match philox.words(side as u64, i as u64)[0] {
            bits if self.wild && !self.exact => f32::from_bits(bits),
            bits if self.exact => 2.0_f32.powi((bits % 24) as i32 - 12),
            bits => bits as f32 * 2.0_f32.powi(-31),
        };
        (0..down * across).map(factor).collect()
    }

    fn scaled<'a>(&self, operand: Operand<'a>, factors: &'a [f32], side: usize) -> Operand<'a> {
        let rows = operand.rows;
        match self.blocks[side] {
            None => operand,
            Some(block) if self.transposed[side] => {
                operand.scaled(Grid::transposed(factors, self.lying(rows, side), block))
            }
            Some(block) => operand.scaled(Grid::rows(factors, self.lying(rows, side), block)),
        }
    }

    /// The output's bits, from `run` with operands, epilogues and an output.
    fn bits(
        &self,
        run: impl Fn(&Operand<'_>, Epilogue<'_>, &Operand<'_>, Epilogue<'_>, ElementsMut<'_>),
    ) -> Vec<u32> {
        let [m, k, n] = self.shape;
        let a = Owned::new(self.types[0], m * k, 1, self.wild);
        let b = Owned::new(self.types[1], n * k, 2, self.wild);
        let grids = [self.factors(m, 0), self.factors(n, 1)];
        let a = self.scaled(a.operand(m, k, self.transposed[0]), &grids[0], 0);
        let b = self.scaled(b.operand(n, k, self.transposed[1]), &grids[1], 1);
        let (by_row, by_col) = (factors(m), factors(n));
        let scale_a = [Epilogue::One, Epilogue::Tensor(1.7), Epilogue::PerRow(&by_row)][self.scales[0]];
        let scale_b = [Epilogue::One, Epilogue::Tensor(0.9), Epilogue::PerRow(&by_col)][self.scales[1]];
        if self.bf16 {
            let mut out: Vec<bf16> = (0..m * n).map(|i| bf16::from_f32(i as f32)).collect();
            run(&a, scale_a, &b, scale_b, ElementsMut::Bf16(&mut out));
            out.iter().map(|x| u32::from(x.to_bits())).collect()
        } else {
            let mut out: Vec<f32> = (0..m * n).map(|i| i as f32).collect();
            run(&a, scale_a, &b, scale_b, ElementsMut::F32(&mut out));
            out.iter().map(|x| x.to_bits()).collect()
        }
    }

    fn assert_equals_specification(&self, threads: &[usize]) {
        let expected = self.bits(|a, scale_a, b, scale_b, out| {
            specification(a, scale_a, b, scale_b, self.store, out);
        });
        for isa in Isa::available() {
            for &threads in threads {
                let found = self.bits(|a, scale_a, b, scale_b, out| {
                    gemm(&Cpu::new(isa, &Threads(threads)), a, scale_a, b, scale_b, self.store, out);
                });
                assert!(found == expected, "{} with {threads} threads: {self:?}", isa.name());
            }
        }
    }
}

const SIZES: [usize; 11] = [0, 1, 2, 15, 16, 17, 63, 64, 65, 97, 130];

#[test]
fn instruction_sets_that_this_machine_lacks_are_named() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        eprintln!("skipped: this CPU has no {}", isa.name());
    }
    assert!(Isa::available().any(|isa| isa == Isa::Scalar));
}

#[test]
fn every_shape_gives_the_bits_of_the_specification() {
    for (i, m) in SIZES.into_iter().enumerate() {
        for (j, n) in SIZES.into_iter().enumerate() {
            for k in [0, 1, 2, 3, 5, 17, 64] {
                let mut case = Case::plain([m, k, n], [TYPES[(i + k) % 4], TYPES[(j + k) % 4]]);
                case.transposed = [i % 2 == 1, (i + j) % 2 == 1];
                case.assert_equals_specification(&[1]);
            }
        }
    }
}

#[test]
fn every_pair_of_types_in_every_layout_gives_the_bits_of_the_specification() {
    for a in TYPES {
        for b in TYPES {
            for layout in 0..4 {
                for k in [1, 7, 259] {
                    let mut case = Case::plain([19, k, 37], [a, b]);
                    case.transposed = [layout & 1 == 1, layout & 2 == 2];
                    case.assert_equals_specification(&[1]);
                    case.bf16 = false;
                    case.assert_equals_specification(&[2]);
                }
            }
        }
    }
}

#[test]
fn every_epilogue_and_store_gives_the_bits_of_the_specification() {
    for scale_a in 0..3 {
        for scale_b in 0..3 {
            for store in [Store::Overwrite, Store::Accumulate] {
                for bf16 in [false, true] {
                    for k in [0, 3, 600] {
                        let scales = [scale_a, scale_b];
                        let case = Case { scales, store, bf16, ..Case::plain([13, k, 35], [Type::E4m3; 2]) };
                        case.assert_equals_specification(&[1]);
                    }
                }
            }
        }
    }
}

#[test]
fn contractions_longer_than_a_stretch_are_one_sum_for_any_number_of_threads() {
    for k in [255, 256, 257, 511, 513, 1200] {
        for types in [[Type::E4m3; 2], [Type::F32, Type::Bf16]] {
            for store in [Store::Overwrite, Store::Accumulate] {
                for bf16 in [false, true] {
                    let case = Case { store, bf16, ..Case::plain([65, k, 98], types) };
                    case.assert_equals_specification(&[1, 2, 3]);
                }
            }
        }
    }
}

#[test]
fn outputs_of_several_blocks_and_tasks_give_the_bits_of_the_specification() {
    for shape in [[1700, 5, 70], [40, 5, 2200], [200, 300, 260]] {
        for types in [[Type::E4m3, Type::E5m2], [Type::Bf16; 2]] {
            Case::plain(shape, types).assert_equals_specification(&[1, 2, 3]);
        }
    }
}

#[test]
fn infinities_nans_subnormals_and_overflow_give_the_bits_of_the_specification() {
    for a in TYPES {
        for b in TYPES {
            for k in [1, 2, 5] {
                for scales in [[0, 0], [2, 1]] {
                    for bf16 in [false, true] {
                        let case = Case { wild: true, scales, bf16, ..Case::plain([33, k, 47], [a, b]) };
                        case.assert_equals_specification(&[1]);
                    }
                }
            }
        }
    }
}

const BLOCKS: [[usize; 2]; 6] = [[1, 128], [128, 1], [128, 128], [1, 32], [5, 3], [1, 1]];

#[test]
fn factors_of_every_block_and_layout_give_the_bits_of_the_specification() {
    for (i, [first, second]) in BLOCKS.into_iter().flat_map(|a| BLOCKS.map(|b| [a, b])).enumerate() {
        for transposed in 0..4 {
            for shape in [[13, 140, 35], [130, 33, 49]] {
                let mut case = Case::plain(shape, [Type::E4m3, TYPES[i % 4]]);
                case.transposed = [transposed & 1 == 1, transposed & 2 == 2];
                case.blocks = [Some(first), (i % 5 > 0).then_some(second)];
                case.exact = transposed % 3 > 0;
                case.bf16 = i % 2 == 0;
                case.assert_equals_specification(&[1]);
            }
        }
    }
}

#[test]
fn factors_change_within_and_between_stretches_for_any_number_of_threads() {
    for k in [0, 1, 127, 128, 129, 257, 400, 700] {
        for exact in [false, true] {
            for transposed in [false, true] {
                let block = if transposed { [128, 1] } else { [1, 128] };
                let mut case = Case::plain([65, k, 98], [Type::E5m2, Type::E4m3]);
                case.transposed[0] = transposed;
                case.blocks = [Some(block), Some([128, 128])];
                (case.exact, case.store) = (exact, Store::Accumulate);
                case.assert_equals_specification(&[1, 2, 3]);
            }
        }
    }
}

#[test]
fn factors_of_any_bits_on_elements_of_any_bits_give_the_bits_of_the_specification() {
    for a in TYPES {
        for b in TYPES {
            for k in [1, 5] {
                let mut case = Case { wild: true, exact: false, ..Case::plain([33, k, 47], [a, b]) };
                case.blocks = [Some([1, 2]), Some([3, 1])];
                case.assert_equals_specification(&[1]);
                case.exact = true;
                case.assert_equals_specification(&[1]);
            }
        }
    }
}

#[test]
fn outputs_of_several_blocks_take_the_factors_of_their_rows() {
    for transposed in [[false, false], [true, false], [false, true]] {
        for shape in [[1700, 5, 70], [40, 5, 2200]] {
            let mut case = Case::plain(shape, [Type::E4m3; 2]);
            case.transposed = transposed;
            case.blocks = transposed.map(|transposed| Some(if transposed { [4, 128] } else { [128, 4] }));
            case.assert_equals_specification(&[2]);
        }
    }
}

/// Numbers of widely differing rows and columns, cast to E4M3 by block; with the reciprocals of the scales.
fn cast_by_block(rows: usize, cols: usize, block: [usize; 2], stream: u64) -> (Vec<u8>, Vec<f32>) {
    let philox = Philox::new(4, "blocks");
    let spread = |i: usize| 2.0_f32.powi((i / cols * 7 % 20) as i32 - (i % cols * 5 % 20) as i32);
    let number = |i: usize| philox.normal_pair(stream, i as u64)[0] * spread(i);
    let numbers: Vec<f32> = (0..rows * cols).map(number).collect();
    let [down, across] = grid([rows, cols], block);
    let (mut codes, mut scales) = (vec![0; rows * cols], vec![0.0; down * across]);
    let x = Matrix::new(Elements::F32(&numbers), rows, cols);
    let out = Quantized { codes: &mut codes, scales: &mut scales };
    let rule = ScaleRule::FinitePowerOfTwo;
    cast_blocks(&Cpu::new(Isa::best(), &Serial), x, Fp8::E4m3, rule, block, out, None);
    (codes, scales.into_iter().map(f32::recip).collect())
}

#[test]
fn products_of_block_casts_are_those_of_the_dequantised_numbers_and_within_the_bound_of_the_exact_sum() {
    // Rows and columns of the matrices, blocks as they lie, and whether they are contracted along their columns: as in
    // fprop, dgrad and wgrad of a linear layer.
    let fprop = [([33, 300], [1, 128], false), ([130, 300], [128, 128], false)];
    let dgrad = [([33, 130], [1, 128], false), ([130, 300], [128, 128], true)];
    let wgrad = [([257, 35], [128, 1], true), ([257, 150], [128, 1], true)];
    for sides in [fprop, dgrad, wgrad] {
        let casts = [0, 1].map(|i| cast_by_block(sides[i].0[0], sides[i].0[1], sides[i].1, i as u64));
        let operands = [0, 1].map(|i| {
            let ((shape, block, transposed), (codes, factors)) = (sides[i], &casts[i]);
            let matrix = Matrix::new(Elements::E4m3(codes), shape[0], shape[1]);
            if transposed {
                Operand::transposed(matrix).scaled(Grid::transposed(factors, shape, block))
            } else {
                Operand::rows(matrix).scaled(Grid::rows(factors, shape, block))
            }
        });
        let [a, b] = operands;
        let (m, k, n) = (a.rows, a.depth, b.rows);

        // Dequantised here, from where the matrix has it: exact, since the factors are powers of two.
        let numbers = [0, 1].map(|i| {
            let ((shape, block, transposed), (codes, factors)) = (sides[i], &casts[i]);
            let across = grid(shape, block)[1];
            let number = |row: usize, col: usize| {
                let factor = factors[row / block[0] * across + col / block[1]];
                f64::from(Fp8::E4m3.decode(codes[row * shape[1] + col])) * f64::from(factor)
            };
            let lying = |i: usize| if transposed { number(i % k, i / k) } else { number(i / k, i % k) };
            (0..shape[0] * shape[1]).map(lying).collect::<Vec<f64>>()
        });
        let floats = [0, 1].map(|i| numbers[i].iter().map(|&x| x as f32).collect::<Vec<f32>>());
        assert!(numbers[0].iter().zip(&floats[0]).all(|(x, float)| *x == f64::from(*float)));
        let one = Epilogue::One;

        let unit = 2.0_f64.powi(-24);
        let gamma = k as f64 * unit / (1.0 - k as f64 * unit);
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, &Serial);
            let (mut found, mut plain) = (vec![0.0_f32; m * n], vec![0.0_f32; m * n]);
            gemm(&cpu, &a, one, &b, one, Store::Overwrite, ElementsMut::F32(&mut found));
            let x = Operand::rows(Matrix::new(Elements::F32(&floats[0]), m, k));
            let y = Operand::rows(Matrix::new(Elements::F32(&floats[1]), n, k));
            gemm(&cpu, &x, one, &y, one, Store::Overwrite, ElementsMut::F32(&mut plain));
            assert_eq!(found, plain, "{} {:?}", isa.name(), sides[0].0);
            for (at, found) in found.into_iter().enumerate() {
                let (x, y) = (&numbers[0][at / n * k..][..k], &numbers[1][at % n * k..][..k]);
                let products = x.iter().zip(y).map(|(x, y)| x * y);
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                // The reference rounds too, by 2⁻²⁹ of that.
                assert!((f64::from(found) - sum).abs() <= 1.001 * gamma * size, "{at}: {found:e} {sum:e}");
            }
        }
    }
}

#[test]
fn a_nan_spoils_its_row_or_column_alone() {
    let (m, k, n) = (20, 30, 40);
    let mut a = vec![0x38_u8; m * k];
    let mut b = vec![0x38_u8; n * k];
    a[7 * k + 11] = 0xff;
    b[23 * k] = 0x7f;
    for isa in Isa::available() {
        let mut out = vec![0.0_f32; m * n];
        let [a, b] =
            [(&a, m), (&b, n)].map(|(x, rows)| Operand::rows(Matrix::new(Elements::E4m3(x), rows, k)));
        let one = Epilogue::One;
        gemm(&Cpu::new(isa, &Serial), &a, one, &b, one, Store::Overwrite, ElementsMut::F32(&mut out));
        for (at, x) in out.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let expected = if i == 7 || j == 23 { f32::NAN.to_bits() } else { 30.0_f32.to_bits() };
            assert_eq!(x.to_bits(), expected, "{i} {j}");
        }
    }
}

/// A finite E4M3 number is a whole number of units of 2⁻⁹, below 2¹⁸.
fn units(code: u8) -> i64 {
    let units = f64::from(Fp8::E4m3.decode(code)) * 512.0;
    assert_eq!(units, units.trunc(), "{code:#x}");
    units as i64
}

#[test]
fn sums_of_e4m3_products_lie_within_the_bound_of_the_exact_integer_sum() {
    // |fl(Σ) − Σ| ≤ γ·Σ|x·y| with γ = k·u / (1 − k·u), u = 2⁻²⁴ (Higham, "Accuracy and Stability of Numerical
    // Algorithms", 3.1: the products are exact, so k additions round).
    let (m, k, n) = (17, 700, 33);
    let philox = Philox::new(3, "exact");
    let codes = |len: usize, stream| -> Vec<u8> {
        let code = |i: usize| (philox.words(stream, i as u64)[0] as u8) & 0xf7;
        (0..len).map(code).collect()
    };
    let (a, b) = (codes(m * k, 0), codes(n * k, 1));
    let unit = 2.0_f64.powi(-24);
    let gamma = k as f64 * unit / (1.0 - k as f64 * unit);
    let [x, y] = [(&a, m), (&b, n)].map(|(x, rows)| Operand::rows(Matrix::new(Elements::E4m3(x), rows, k)));
    for isa in Isa::available() {
        let mut out = vec![0.0_f32; m * n];
        let one = Epilogue::One;
        gemm(&Cpu::new(isa, &Serial), &x, one, &y, one, Store::Overwrite, ElementsMut::F32(&mut out));
        for (at, &found) in out.iter().enumerate() {
            let (a, b) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
            let products = a.iter().zip(b).map(|(&a, &b)| units(a) * units(b));
            let (sum, size) = products.fold((0_i64, 0_i64), |(sum, size), p| (sum + p, size + p.abs()));
            let scale = 2.0_f64.powi(-18);
            let error = (f64::from(found) - sum as f64 * scale).abs();
            assert!(error <= gamma * size as f64 * scale, "{at}: {error:e}");
            assert!(found != 0.0 || sum == 0);
        }
    }
}

#[test]
fn small_whole_numbers_give_the_exact_sum() {
    // Sums below 2²⁴ round nowhere: codes of −8, …, 8 in units of one.
    let (m, k, n) = (31, 1000, 29);
    let code = |i: usize| Fp8::E4m3.encode((i * 7 % 17) as f32 - 8.0);
    let a: Vec<u8> = (0..m * k).map(code).collect();
    let b: Vec<u8> = (0..n * k).map(|i| code(i / 3)).collect();
    let [x, y] = [(&a, m), (&b, n)].map(|(x, rows)| Operand::rows(Matrix::new(Elements::E4m3(x), rows, k)));
    let mut out = vec![0.0_f32; m * n];
    let one = Epilogue::One;
    gemm(&Cpu::new(Isa::best(), &Serial), &x, one, &y, one, Store::Overwrite, ElementsMut::F32(&mut out));
    for (at, &found) in out.iter().enumerate() {
        let (a, b) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
        let sum: i64 = a.iter().zip(b).map(|(&a, &b)| (units(a) * units(b)) >> 18).sum();
        assert_eq!(found, sum as f32);
    }
}

#[test]
#[should_panic(expected = "b: a stride leaves the elements")]
fn a_stride_that_leaves_the_elements_is_refused() {
    let a = Owned::new(Type::E4m3, 12, 0, false);
    let mut b = a.operand(3, 4, false);
    b.row_stride = 5;
    let a = a.operand(3, 4, false);
    let mut out = [0.0; 9];
    let (cpu, one) = (Cpu::new(Isa::best(), &Serial), Epilogue::One);
    gemm(&cpu, &a, one, &b, one, Store::Overwrite, ElementsMut::F32(&mut out));
}

#[test]
#[should_panic(expected = "a: a stride leaves the factors")]
fn a_grid_that_leaves_its_factors_is_refused() {
    let a = Owned::new(Type::E4m3, 12, 0, false);
    let grid = Grid { factors: &[1.0; 5], row_block: 1, depth_block: 2, row_stride: 2, depth_stride: 1 };
    let a = a.operand(3, 4, false);
    let mut out = [0.0; 9];
    let (cpu, one) = (Cpu::new(Isa::best(), &Serial), Epilogue::One);
    gemm(&cpu, &a.scaled(grid), one, &a, one, Store::Overwrite, ElementsMut::F32(&mut out));
}

#[test]
#[should_panic(expected = "factors of 3×2 blocks")]
fn a_factor_for_each_block_is_asked_for() {
    Grid::rows(&[1.0; 5], [3, 4], [1, 2]);
}

#[test]
#[should_panic(expected = "scale_a: one factor a row")]
fn a_factor_too_few_is_refused() {
    let a = Owned::new(Type::E4m3, 12, 0, false);
    let a = a.operand(3, 4, false);
    let mut out = [0.0; 9];
    let cpu = Cpu::new(Isa::best(), &Serial);
    let scale = Epilogue::PerRow(&[1.0; 2]);
    gemm(&cpu, &a, scale, &a, Epilogue::One, Store::Overwrite, ElementsMut::F32(&mut out));
}
