//! Every path against the specification: the same codes, scales and counts.

use half::bf16;

use super::*;
use crate::philox::Philox;
use crate::{Isa, Parallel, Serial};

/// Some threads for the time of a call.
struct Threads(usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for thread in 0..self.0 {
                scope.spawn(move || (thread..tasks).step_by(self.0).for_each(body));
            }
        });
    }
}

const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];

/// Normal numbers of widely differing rows and columns; or, `wild`, any bits at all.
fn numbers(rows: usize, cols: usize, wild: bool) -> Vec<f32> {
    let philox = Philox::new(5, "cast");
    let number = |i: usize| {
        let (row, col) = (i / cols, i % cols);
        let spread = 2.0_f32.powi((row * 7 % 40) as i32 - (col * 5 % 60) as i32);
        if wild {
            f32::from_bits(philox.words(0, i as u64)[0])
        } else {
            philox.normal_pair(0, i as u64)[0] * spread
        }
    };
    (0..rows * cols).map(number).collect()
}

/// Everything that the casts make of a matrix.
#[derive(Debug, PartialEq)]
struct Results {
    scales: Vec<u32>,
    codes: Vec<u8>,
    stats: Vec<CastStats>,
}

/// Runs the casts with outputs that hold something else before.
struct Recorder {
    counted: bool,
    results: Results,
}

impl Recorder {
    fn new(counted: bool) -> Self {
        Self { counted, results: Results { scales: Vec::new(), codes: Vec::new(), stats: Vec::new() } }
    }

    /// `sizes` are the numbers of codes and of scales.
    fn cast(&mut self, sizes: [usize; 2], run: impl FnOnce(Quantized<'_>, Option<&mut CastStats>)) {
        self.cast_twice([sizes, [0; 2]], |out, _, stats| run(out, stats));
    }

    fn cast_twice(
        &mut self,
        sizes: [[usize; 2]; 2],
        run: impl FnOnce(Quantized<'_>, Quantized<'_>, Option<&mut CastStats>),
    ) {
        let mut codes = sizes.map(|[codes, _]| vec![0xaa; codes]);
        let mut scales = sizes.map(|[_, scales]| vec![-1.0; scales]);
        let mut stats = CastStats { elements: 1, saturated: 2, underflowed: 3 };
        let ([first_codes, second_codes], [first_scales, second_scales]) = (&mut codes, &mut scales);
        let first = Quantized { codes: first_codes, scales: first_scales };
        let second = Quantized { codes: second_codes, scales: second_scales };
        run(first, second, self.counted.then_some(&mut stats));
        self.results.codes.extend(codes.concat());
        // The NaN of a scale may have either sign; no code depends on it.
        let bits = |s: &f32| if s.is_nan() { u32::MAX } else { s.to_bits() };
        self.results.scales.extend(scales.concat().iter().map(bits));
        self.results.stats.push(stats);
    }
}

/// What `expected` records comes out on every path, with each of these numbers of threads.
fn assert_paths_equal(
    what: &str,
    threads: &[usize],
    expected: impl Fn(&mut Recorder),
    found: impl Fn(&Cpu<'_>, &mut Recorder),
) {
    for counted in [false, true] {
        let mut specified = Recorder::new(counted);
        expected(&mut specified);
        for isa in Isa::available() {
            for &threads in threads {
                let mut recorder = Recorder::new(counted);
                found(&Cpu::new(isa, &Threads(threads)), &mut recorder);
                assert!(recorder.results == specified.results, "{} {threads} threads {what}", isa.name());
            }
        }
    }
}

fn assert_casts_equal_specification(x: Matrix<'_>, format: Fp8, rule: ScaleRule, threads: &[usize]) {
    let n = x.rows * x.cols;
    let (by_row, by_col, whole) = ([n, x.rows], [n, x.cols], [n, 0]);
    // Maxima are recorded as if they were scales.
    let maximum = [0, 1];
    let what = format!("{}×{} {format:?} {rule:?}", x.rows, x.cols);
    assert_paths_equal(
        &what,
        threads,
        |recorder| {
            recorder.cast(by_row, |out, s| specification::cast_rows(x, format, rule, out, s));
            recorder.cast(by_col, |out, s| specification::cast_cols(x, format, rule, out, s));
            recorder.cast_twice([by_row, by_col], |rows, cols, mut s| {
                specification::cast_rows(x, format, rule, rows, s.as_deref_mut());
                specification::cast_cols(x, format, rule, cols, s);
            });
            recorder.cast(whole, |out, s| specification::cast_tensor(x, format, 3.0, out.codes, s));
            recorder.cast_twice([whole, maximum], |out, top, s| {
                specification::cast_tensor(x, format, 3.0, out.codes, s);
                top.scales[0] = specification::amax_of(x, Nan::Ignored);
            });
            recorder.cast(maximum, |top, _| top.scales[0] = specification::amax_of(x, Nan::Ignored));
            recorder.cast(maximum, |top, _| top.scales[0] = specification::amax_of(x, Nan::Wins));
        },
        |cpu, recorder| {
            recorder.cast(by_row, |out, s| cast_rows(cpu, x, format, rule, out, s));
            recorder.cast(by_col, |out, s| cast_cols(cpu, x, format, rule, out, s));
            recorder.cast_twice([by_row, by_col], |rows, cols, s| {
                cast_rows_and_cols(cpu, x, format, rule, rows, cols, s);
            });
            recorder.cast(whole, |out, s| cast_tensor(cpu, x, format, 3.0, out.codes, s));
            recorder.cast_twice([whole, maximum], |out, top, s| {
                top.scales[0] = cast_tensor_with_amax(cpu, x, format, 3.0, out.codes, s);
            });
            recorder.cast(maximum, |top, _| top.scales[0] = amax_ignoring_nan(cpu, x));
            recorder.cast(maximum, |top, _| top.scales[0] = amax_of(cpu, x));
        },
    );
}

const BLOCKS: [[usize; 2]; 8] =
    [[1, 128], [128, 1], [128, 128], [1, 32], [32, 1], [5, 3], [1, 1], [usize::MAX, usize::MAX]];

const LENGTHS: [usize; 4] = [1, 3, 128, usize::MAX];

fn assert_block_casts_equal_specification(x: Matrix<'_>, format: Fp8, rule: ScaleRule, threads: &[usize]) {
    let shape = [x.rows, x.cols];
    let sizes = |block| [x.rows * x.cols, grid(shape, block).iter().product()];
    let both = |length| [sizes([1, length]), sizes([length, 1])];
    assert_paths_equal(
        &format!("{shape:?} {format:?} {rule:?} by block"),
        threads,
        |recorder| {
            for block in BLOCKS {
                recorder.cast(sizes(block), |out, s| {
                    specification::cast_blocks(x, format, rule, block, out, s);
                });
            }
            for length in LENGTHS {
                recorder.cast_twice(both(length), |rows, cols, mut s| {
                    specification::cast_blocks(x, format, rule, [1, length], rows, s.as_deref_mut());
                    specification::cast_blocks(x, format, rule, [length, 1], cols, s);
                });
            }
        },
        |cpu, recorder| {
            for block in BLOCKS {
                recorder.cast(sizes(block), |out, s| cast_blocks(cpu, x, format, rule, block, out, s));
            }
            for length in LENGTHS {
                recorder.cast_twice(both(length), |rows, cols, s| {
                    cast_row_and_col_blocks(cpu, x, format, rule, length, rows, cols, s);
                });
            }
        },
    );
}

/// A matrix of f32 and one of bf16.
fn with_both_types(rows: usize, cols: usize, wild: bool, mut body: impl FnMut(Matrix<'_>)) {
    let numbers = numbers(rows, cols, wild);
    let halves: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
    for elements in [Elements::F32(&numbers), Elements::Bf16(&halves)] {
        body(Matrix::new(elements, rows, cols));
    }
}

#[test]
fn every_shape_gives_the_codes_scales_and_counts_of_the_specification() {
    for rows in [0, 1, 2, 15, 16, 17, 63, 64, 65] {
        for cols in [0, 1, 2, 15, 16, 17, 63, 64, 65, 130] {
            let (format, rule) = (FORMATS[rows % 2], ScaleRule::ALL[(rows + cols) % 4]);
            with_both_types(rows, cols, false, |x| assert_casts_equal_specification(x, format, rule, &[1]));
        }
    }
    for rows in [0, 1, 2, 127, 128, 129] {
        for cols in [0, 1, 31, 127, 128, 129, 300] {
            let (format, rule) = (FORMATS[rows % 2], ScaleRule::ALL[(rows + cols) % 4]);
            with_both_types(rows, cols, false, |x| {
                assert_block_casts_equal_specification(x, format, rule, &[1]);
            });
        }
    }
}

#[test]
fn every_type_format_and_rule_gives_the_bits_of_the_specification_for_any_values() {
    for wild in [false, true] {
        let numbers = numbers(50, 300, wild);
        let halves: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
        for elements in [Elements::F32(&numbers), Elements::Bf16(&halves)] {
            for format in FORMATS {
                for rule in ScaleRule::ALL {
                    let x = Matrix::new(elements, 50, 300);
                    assert_casts_equal_specification(x, format, rule, &[1, 2]);
                    assert_block_casts_equal_specification(x, format, rule, &[1, 2]);
                }
            }
        }
    }
}

#[test]
fn several_blocks_of_rows_give_the_bits_of_the_specification_for_any_number_of_threads() {
    for (rows, cols) in [(300, 700), (3, 40_000), (70_000, 3)] {
        with_both_types(rows, cols, false, |x| {
            assert_casts_equal_specification(x, Fp8::E4m3, ScaleRule::PowerOfTwo, &[1, 2, 3]);
            assert_block_casts_equal_specification(x, Fp8::E4m3, ScaleRule::FinitePowerOfTwo, &[1, 2, 3]);
        });
    }
    with_both_types(300, 700, true, |x| {
        assert_casts_equal_specification(x, Fp8::E4m3, ScaleRule::FiniteLinear, &[1, 3]);
        assert_block_casts_equal_specification(x, Fp8::E5m2, ScaleRule::FiniteLinear, &[1, 3]);
    });
}

#[test]
fn fp8_codes_can_be_cast_too() {
    let codes: Vec<u8> = (0..=255).collect();
    let x = Matrix::new(Elements::E5m2(&codes), 8, 32);
    assert_casts_equal_specification(x, Fp8::E4m3, ScaleRule::Linear, &[1]);
    assert_block_casts_equal_specification(x, Fp8::E4m3, ScaleRule::FiniteLinear, &[1]);
}

fn assert_tensor_cast(elements: Elements<'_>, scales: &[f32]) {
    let n = elements.len();
    let x = Matrix::new(elements, 1, n);
    let (mut found, mut expected) = (vec![0; n], vec![0; n]);
    for format in FORMATS {
        for &scale in scales {
            let mut expected_stats = CastStats::default();
            specification::cast_tensor(x, format, scale, &mut expected, Some(&mut expected_stats));
            for isa in Isa::available() {
                let mut stats = CastStats::default();
                let cpu = Cpu::new(isa, &Serial);
                cast_tensor(&cpu, x, format, scale, &mut found, Some(&mut stats));
                assert!(found == expected && stats == expected_stats, "{} {format:?} {scale:e}", isa.name());
                cast_tensor(&cpu, x, format, scale, &mut found, None);
                assert!(found == expected, "{} {format:?} {scale:e} uncounted", isa.name());
            }
        }
    }
}

#[test]
fn every_bf16_number_is_cast_alike_on_all_paths() {
    let numbers: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let scales = [1.0, 448.0, 0.013, 2.0_f32.powi(-40), 2.0_f32.powi(90), 0.0, f32::INFINITY, f32::NAN];
    assert_tensor_cast(Elements::Bf16(&numbers), &scales);
}

#[test]
fn f32_numbers_of_all_exponents_are_cast_alike_on_all_paths() {
    let numbers: Vec<f32> = (0..=u32::MAX).step_by(4099).map(f32::from_bits).collect();
    assert_tensor_cast(Elements::F32(&numbers), &[1.0, 0.7]);
}

#[test]
fn a_nan_makes_its_row_nan_and_an_infinity_itself() {
    let numbers = [1.0, -2.0, f32::NAN, 4.0, 1.0, f32::NEG_INFINITY, -3.0, 0.0];
    let x = Matrix::new(Elements::F32(&numbers), 2, 4);
    let (mut codes, mut scales) = ([0; 8], [0.0; 2]);
    let out = Quantized { codes: &mut codes, scales: &mut scales };
    cast_rows(&Cpu::new(Isa::best(), &Serial), x, Fp8::E4m3, ScaleRule::PowerOfTwo, out, None);
    assert!(scales[0].is_nan() && scales[1] == 0.0);
    assert_eq!(codes, [0x7f, 0x7f, 0x7f, 0x7f, 0x00, 0x7f, 0x80, 0x00]);
}

#[test]
fn a_finite_rule_passes_over_nan_and_gives_a_row_of_an_infinity_the_scale_one() {
    let numbers = [1.0, -2.0, f32::NAN, 4.0, 1.0, f32::NEG_INFINITY, -3.0, 0.0, 0.0, -0.0, 0.0, 0.0];
    let x = Matrix::new(Elements::F32(&numbers), 3, 4);
    for isa in Isa::available() {
        let (mut codes, mut scales) = ([0; 12], [0.0; 3]);
        let out = Quantized { codes: &mut codes, scales: &mut scales };
        cast_rows(&Cpu::new(isa, &Serial), x, Fp8::E4m3, ScaleRule::FinitePowerOfTwo, out, None);
        assert_eq!(scales, [64.0, 1.0, 1.0]);
        let expected = [0x68, 0xf0, 0x7f, 0x78, 0x38, 0xfe, 0xc4, 0x00, 0x00, 0x80, 0x00, 0x00];
        assert_eq!(codes, expected);
    }
}

#[test]
fn the_amax_of_any_bf16_number_ignores_nan_alone() {
    for isa in Isa::available() {
        let cpu = Cpu::new(isa, &Serial);
        for bits in 0..=u16::MAX {
            let number = bf16::from_bits(bits);
            // Between others, at the end of a vector and beyond it.
            let among = [bf16::NAN, number, bf16::NEG_ZERO];
            let expected = if number.is_nan() { 0.0 } else { number.to_f32().abs() };
            let x = Matrix::new(Elements::Bf16(&among), 1, 3);
            assert_eq!(amax_ignoring_nan(&cpu, x).to_bits(), expected.to_bits(), "{bits:#x}");
        }
        // As many of them as there are, in one tensor: up to each infinity, the maximum is the last.
        let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        for (end, expected) in [(0x7f80, bf16::MAX), (0x7f81, bf16::INFINITY), (0x10000, bf16::INFINITY)] {
            let mut codes = vec![0; end];
            let x = Matrix::new(Elements::Bf16(&all[..end]), 1, end);
            let top = cast_tensor_with_amax(&cpu, x, Fp8::E5m2, 1.0, &mut codes, None);
            assert_eq!(top, expected.to_f32());
            assert_eq!(amax_ignoring_nan(&cpu, x), expected.to_f32());
        }
        let nans = [bf16::NAN; 200];
        assert_eq!(amax_ignoring_nan(&cpu, Matrix::new(Elements::Bf16(&nans), 2, 100)).to_bits(), 0);
    }
}

#[test]
fn transformer_engines_casts_come_out_as_there() {
    // Saturating, to nearest even, from f32 (reference values of its cast kernels with scale 1).
    let tiny = |exponent| 2.0_f32.powi(exponent);
    let e4m3 = [
        (448.0, 0x7e),
        (449.0, 0x7e),
        (1e9, 0x7e),
        (f32::INFINITY, 0x7e),
        (f32::NAN, 0x7f),
        (-1.0, 0xb8),
        (0.02, 0x0a),
        (tiny(-9), 0x01),
        (tiny(-10), 0x00),
        (tiny(-10) * 1.0001, 0x01),
        (3.0 * tiny(-10), 0x02),
        (17.0, 0x58),
        (19.0, 0x5a),
    ];
    let e5m2 = [
        (57344.0, 0x7b),
        (61440.0, 0x7b),
        (f32::INFINITY, 0x7b),
        (tiny(-16), 0x01),
        (tiny(-17), 0x00),
        (1.01 * tiny(-17), 0x01),
        (1.125, 0x3c),
        (1.375, 0x3e),
        (1e-5, 0x01),
        (7e-6, 0x00),
    ];
    for (format, table) in [(Fp8::E4m3, &e4m3[..]), (Fp8::E5m2, &e5m2)] {
        for isa in Isa::available() {
            // Alone, and often enough for vectors.
            for times in [1, 40] {
                let numbers: Vec<f32> = table.iter().flat_map(|(x, _)| vec![*x; times]).collect();
                let expected: Vec<u8> = table.iter().flat_map(|(_, code)| vec![*code; times]).collect();
                let mut codes = vec![0; numbers.len()];
                let x = Matrix::new(Elements::F32(&numbers), table.len(), times);
                let top = cast_tensor_with_amax(&Cpu::new(isa, &Serial), x, format, 1.0, &mut codes, None);
                assert_eq!(codes, expected, "{format:?} {}", isa.name());
                assert_eq!(top, f32::INFINITY);
            }
        }
    }
}

#[test]
fn a_scale_belongs_to_its_block_alone() {
    // Blocks of 2 × 2, cut at the edges; the NaN is passed over.
    let numbers =
        [1.0, -7.0, 0.0, 0.0, 448.0, 2.0, f32::NAN, -0.0, 0.0, 1.0, 56.0, 3.0, 3.5, 900.0, f32::INFINITY];
    let x = Matrix::new(Elements::F32(&numbers), 3, 5);
    for isa in Isa::available() {
        let (mut codes, mut scales) = ([0; 15], [0.0; 6]);
        let out = Quantized { codes: &mut codes, scales: &mut scales };
        let rule = ScaleRule::FinitePowerOfTwo;
        cast_blocks(&Cpu::new(isa, &Serial), x, Fp8::E4m3, rule, [2, 2], out, None);
        assert_eq!(scales, [64.0, 1.0, 1.0, 8.0, 0.25, 1.0]);
        let encode = |(x, scale): (&f32, f32)| Fp8::E4m3.encode(x * scale);
        let expected = [64.0, 64.0, 1.0, 1.0, 1.0, 64.0, 64.0, 1.0, 1.0, 1.0, 8.0, 8.0, 0.25, 0.25, 1.0];
        assert_eq!(codes.to_vec(), numbers.iter().zip(expected).map(encode).collect::<Vec<u8>>());
        assert_eq!((codes[6], codes[14]), (0x7f, 0x7e));
    }
}

#[test]
fn casts_by_row_column_and_tensor_are_casts_by_block() {
    let (rows, cols) = (70, 90);
    let numbers = numbers(rows, cols, true);
    let x = Matrix::new(Elements::F32(&numbers), rows, cols);
    let cpu = Cpu::new(Isa::best(), &Serial);
    for rule in ScaleRule::ALL {
        let (mut by_axis, mut by_block) = (Recorder::new(true), Recorder::new(true));
        let amax = match rule.nan() {
            Nan::Wins => amax_of(&cpu, x),
            Nan::Ignored => amax_ignoring_nan(&cpu, x),
        };
        by_axis.cast([rows * cols, rows], |out, s| cast_rows(&cpu, x, Fp8::E5m2, rule, out, s));
        by_axis.cast([rows * cols, cols], |out, s| cast_cols(&cpu, x, Fp8::E5m2, rule, out, s));
        by_axis.cast([rows * cols, 1], |out, s| {
            out.scales[0] = rule.scale(amax, Fp8::E5m2);
            cast_tensor(&cpu, x, Fp8::E5m2, out.scales[0], out.codes, s);
        });
        for (block, scales) in [([1, cols], rows), ([rows, 1], cols), ([rows, cols], 1)] {
            by_block
                .cast([rows * cols, scales], |out, s| cast_blocks(&cpu, x, Fp8::E5m2, rule, block, out, s));
        }
        assert!(by_axis.results == by_block.results, "{rule:?}");
    }
}

#[test]
#[should_panic(expected = "blocks of 2×0")]
fn a_block_without_columns_is_refused() {
    let x = Matrix::new(Elements::F32(&[0.0; 6]), 2, 3);
    let out = Quantized { codes: &mut [0; 6], scales: &mut [0.0; 3] };
    cast_blocks(&Cpu::new(Isa::best(), &Serial), x, Fp8::E4m3, ScaleRule::FiniteLinear, [2, 0], out, None);
}

#[test]
#[should_panic(expected = "scales of a 2×3 matrix")]
fn a_scale_too_many_is_refused() {
    let x = Matrix::new(Elements::F32(&[0.0; 6]), 2, 3);
    let out = Quantized { codes: &mut [0; 6], scales: &mut [0.0; 3] };
    cast_rows(&Cpu::new(Isa::best(), &Serial), x, Fp8::E4m3, ScaleRule::Linear, out, None);
}
