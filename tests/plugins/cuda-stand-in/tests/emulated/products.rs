//! cuBLASLt: what it multiplies, and what it refuses.

use std::ffi::{c_int, c_void};

use fp8flow_kernels::Fp8;

use crate::rig::{Rig, call};

const F32: c_int = 0;
const BF16: c_int = 14;
const E4M3: c_int = 28;
const E5M2: c_int = 29;
const UNSUPPORTED: c_int = 15;
const INVALID: c_int = 7;

/// Types of A, B, C and D; rows, columns and leading dimension of each; what the descriptor says.
#[derive(Clone, Copy)]
struct Case {
    types: [c_int; 4],
    shape: [usize; 3],
    transposed: [bool; 2],
    modes: [c_int; 2],
    beta: f32,
}

impl Case {
    /// Both operands with k first, as FP8 has them.
    fn fp8(a: c_int, b: c_int, d: c_int, shape: [usize; 3], modes: [c_int; 2]) -> Self {
        Self { types: [a, b, d, d], shape, transposed: [true, false], modes, beta: 0.0 }
    }
}

struct Lt<'a> {
    rig: &'a Rig,
    handle: usize,
    descriptor: usize,
    layouts: [usize; 4],
    preference: usize,
}

type Heuristic = [u64; 12];

fn bytes(number: c_int) -> usize {
    match number {
        F32 => 4,
        BF16 => 2,
        _ => 1,
    }
}

impl<'a> Lt<'a> {
    fn new(rig: &'a Rig, case: &Case) -> Self {
        let (mut handle, mut descriptor, mut preference) = (0_usize, 0_usize, 0_usize);
        assert_eq!(call!(rig, cublasLtCreate(&raw mut handle => *mut usize)), 0);
        let code = call!(rig, cublasLtMatmulDescCreate(&raw mut descriptor => *mut usize, 68 => c_int, F32 => c_int));
        assert_eq!(code, 0);
        assert_eq!(call!(rig, cublasLtMatmulPreferenceCreate(&raw mut preference => *mut usize)), 0);
        let [m, n, k] = case.shape;
        let turned = |rows, columns, turned: bool| if turned { (columns, rows) } else { (rows, columns) };
        let shapes = [turned(m, k, case.transposed[0]), turned(k, n, case.transposed[1]), (m, n), (m, n)];
        let layouts = [0, 1, 2, 3].map(|i| {
            let (mut layout, (rows, columns)) = (0_usize, shapes[i]);
            let code = call!(rig, cublasLtMatrixLayoutCreate(
                &raw mut layout => *mut usize, case.types[i] => c_int, rows as u64 => u64, columns as u64 => u64, rows as i64 => i64,
            ));
            assert_eq!(code, 0);
            layout
        });
        let lt = Self { rig, handle, descriptor, layouts, preference };
        for (i, turned) in case.transposed.into_iter().enumerate() {
            assert_eq!(lt.set(3 + i as c_int, c_int::from(turned)), 0);
            if case.modes[i] != 0 {
                assert_eq!(lt.set(31 + i as c_int, case.modes[i]), 0);
            }
        }
        lt
    }

    fn set<T: Copy>(&self, attribute: c_int, value: T) -> c_int {
        call!(self.rig, cublasLtMatmulDescSetAttribute(
            self.descriptor => usize, attribute => c_int, (&raw const value).cast() => *const c_void, size_of::<T>() => usize,
        ))
    }

    /// Up to three algorithms within so many bytes to work in.
    fn algorithms(&self, workspace: usize) -> Result<Vec<Heuristic>, c_int> {
        let code = call!(self.rig, cublasLtMatmulPreferenceSetAttribute(
            self.preference => usize, 1 => c_int, &raw const workspace => *const usize, 8 => usize,
        ));
        assert_eq!(code, 0);
        let (mut found, mut count) = ([Heuristic::default(); 3], 0_i32);
        let [a, b, c, d] = self.layouts;
        let code = call!(self.rig, cublasLtMatmulAlgoGetHeuristic(
            self.handle => usize, self.descriptor => usize, a => usize, b => usize, c => usize, d => usize,
            self.preference => usize, 3 => c_int, found.as_mut_ptr() => *mut Heuristic, &raw mut count => *mut i32,
        ));
        if code == 0 { Ok(found[..count as usize].to_vec()) } else { Err(code) }
    }

    fn multiply(
        &self,
        places: [usize; 4],
        beta: f32,
        algorithm: Option<&Heuristic>,
        workspace: (usize, usize),
    ) -> c_int {
        let ([a, b, c, d], [la, lb, lc, ld]) = (places, self.layouts);
        let (alpha, algorithm) = (2.0_f32, algorithm.map_or(std::ptr::null(), std::ptr::from_ref));
        call!(self.rig, cublasLtMatmul(
            self.handle => usize, self.descriptor => usize, &raw const alpha => *const f32, a => usize, la => usize,
            b => usize, lb => usize, &raw const beta => *const f32, c => usize, lc => usize, d => usize, ld => usize,
            algorithm => *const Heuristic, workspace.0 => usize, workspace.1 => usize, self.rig.stream => usize,
        ))
    }
}

/// Small numbers in a type, and what they are.
fn operand(number: c_int, n: usize, seed: u32) -> (Vec<u8>, Vec<f64>) {
    let mut state = seed;
    let (mut codes, mut numbers) = (Vec::new(), Vec::new());
    for _ in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let x = (state >> 27) as f32 / 8.0 - 2.0;
        let x = match number {
            F32 => {
                codes.extend(x.to_le_bytes());
                x
            }
            BF16 => {
                codes.extend(((x.to_bits() >> 16) as u16).to_le_bytes());
                f32::from_bits(x.to_bits() & 0xFFFF_0000)
            }
            _ => {
                let format = if number == E4M3 { Fp8::E4m3 } else { Fp8::E5m2 };
                codes.push(format.encode(x));
                format.decode(format.encode(x))
            }
        };
        numbers.push(f64::from(x));
    }
    (codes, numbers)
}

/// Multiplies on the card and by a plain loop.
fn agree(rig: &Rig, case: &Case) {
    let lt = Lt::new(rig, case);
    let [m, n, k] = case.shape;
    let (a, a_numbers) = operand(case.types[0], m * k, 1);
    let (b, b_numbers) = operand(case.types[1], n * k, 2);
    let (c, c_numbers) = operand(case.types[2], m * n, 3);
    let blocks = k.div_ceil(128);
    let mut scales: [Vec<f32>; 2] = [Vec::new(), Vec::new()];
    if case.types[0] >= E4M3 {
        for (i, extent) in [m, n].into_iter().enumerate() {
            let count = match case.modes[i] {
                0 => 1,
                3 => extent,
                4 => extent * blocks,
                _ => extent.div_ceil(128) * blocks.next_multiple_of(4),
            };
            scales[i] = (0..count).map(|j| 0.5 + (j * 7 % 11) as f32 / 8.0).collect();
            assert_eq!(lt.set(17 + i as c_int, rig.give(&scales[i])), 0);
        }
    }
    let [d_bytes, ..] = [m * n * bytes(case.types[3])];
    let (a, b, c, d) = (rig.give(&a), rig.give(&b), rig.give(&c), rig.alloc(d_bytes));
    let workspace = rig.alloc(1 << 20);
    for algorithm in lt.algorithms(1 << 20).unwrap() {
        assert_eq!(lt.multiply([a, b, c, d], case.beta, Some(&algorithm), (workspace, 1 << 20)), 0);
        let found: Vec<f32> = match case.types[3] {
            F32 => rig.read(d, m * n),
            _ => {
                rig.read::<u16>(d, m * n).iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect()
            }
        };
        let scale = |operand: usize, i: usize, kb: usize| -> f64 {
            let extent = [m, n][operand];
            f64::from(match (scales[operand].is_empty(), case.modes[operand]) {
                (true, _) => 1.0,
                (_, 0) => scales[operand][0],
                (_, 3) => scales[operand][i],
                (_, 4) => scales[operand][kb * extent + i],
                _ => scales[operand][i / 128 * blocks.next_multiple_of(4) + kb],
            })
        };
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let sum: f64 = (0..k)
                .map(|i| {
                    let x = if case.transposed[0] { a_numbers[row * k + i] } else { a_numbers[i * m + row] };
                    let y = if case.transposed[1] {
                        b_numbers[i * n + column]
                    } else {
                        b_numbers[column * k + i]
                    };
                    x * y * scale(0, row, i / 128) * scale(1, column, i / 128)
                })
                .sum();
            let expected = 2.0 * sum + f64::from(case.beta) * c_numbers[column * m + row];
            let bound = if case.types[3] == F32 { 1e-6 } else { 1.0 / 256.0 };
            let error = (f64::from(found[column * m + row]) - expected).abs();
            assert!(
                error <= bound * expected.abs().max(0.1),
                "row {row}, column {column}: {error} of {expected}"
            );
        }
    }
}

#[test]
fn products_in_bf16_and_f32_are_those_of_a_plain_loop() {
    let Some(rig) = Rig::take() else { return };
    for transposed in [[false, false], [true, false], [false, true], [true, true]] {
        for types in [[BF16; 4], [BF16, BF16, F32, F32], [F32; 4]] {
            for beta in [0.0, 1.0] {
                agree(&rig, &Case { types, shape: [20, 33, 19], transposed, modes: [0; 2], beta });
            }
        }
    }
    agree(
        &rig,
        &Case {
            types: [BF16; 4],
            shape: [160, 130, 140],
            transposed: [true, false],
            modes: [0; 2],
            beta: 0.0,
        },
    );
}

#[test]
fn products_in_fp8_are_those_of_a_plain_loop_in_every_mode() {
    let Some(rig) = Rig::take() else { return };
    let shape = [272, 20, 400];
    for (a, b) in [(E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3)] {
        for modes in [[0, 0], [3, 3], [4, 4], [4, 5], [5, 4]] {
            for d in [BF16, F32] {
                agree(&rig, &Case::fp8(a, b, d, shape, modes));
            }
        }
    }
    agree(&rig, &Case { beta: 1.0, ..Case::fp8(E4M3, E4M3, F32, [16, 3, 16], [0, 0]) });
}

#[test]
fn what_hopper_does_not_multiply_is_refused() {
    let Some(rig) = Rig::take() else { return };
    let good = Case::fp8(E4M3, E4M3, BF16, [32, 16, 64], [0, 0]);
    let refused = |case: Case| Lt::new(&rig, &case).algorithms(0).err();
    assert_eq!(refused(good), None);
    for (what, case) in [
        ("E5M2 by E5M2", Case { types: [E5M2, E5M2, BF16, BF16], ..good }),
        ("NN", Case { transposed: [false, false], ..good }),
        ("NT", Case { transposed: [false, true], ..good }),
        ("TT", Case { transposed: [true, true], ..good }),
        ("k that is no multiple of 16", Case { shape: [32, 16, 72], ..good }),
        ("m that is no multiple of 16", Case { shape: [40, 16, 64], ..good }),
        ("blocks by blocks", Case { modes: [5, 5], ..good }),
        ("rows by one scale", Case { modes: [3, 0], ..good }),
        ("n that is no multiple of 4, by blocks", Case { shape: [32, 18, 64], modes: [4, 4], ..good }),
        ("FP8 by bf16", Case { types: [E4M3, BF16, BF16, BF16], ..good }),
        ("C of another type", Case { types: [E4M3, E4M3, F32, BF16], ..good }),
        ("f32 to bf16", Case { types: [F32, F32, BF16, BF16], ..good }),
        ("scales of bf16", Case { types: [BF16; 4], modes: [3, 3], ..good }),
    ] {
        assert_eq!(refused(case), Some(UNSUPPORTED), "{what}");
    }
    let lt = Lt::new(&rig, &good);
    assert_eq!(lt.set(32, 2 as c_int), UNSUPPORTED, "MXFP8");
    assert_eq!(lt.set(25, 1_i8), 0);
    assert_eq!(lt.set(25, 1_i32), INVALID, "the size of another type");
}

#[test]
fn what_ada_does_not_multiply_is_refused() {
    let Some(rig) = Rig::take() else { return };
    assert_eq!(call!(rig, cuCtxSetCurrent(rig.context(1) => usize)), 0);
    let refused =
        |modes| Lt::new(&rig, &Case::fp8(E4M3, E5M2, BF16, [32, 16, 64], modes)).algorithms(0).err();
    assert_eq!([[0, 0], [3, 3], [4, 4], [4, 5]].map(refused), [None, Some(15), Some(15), Some(15)]);
}

#[test]
fn addresses_are_looked_at() {
    let Some(rig) = Rig::take() else { return };
    let case = Case::fp8(E4M3, E4M3, BF16, [32, 16, 64], [3, 3]);
    let lt = Lt::new(&rig, &case);
    let (a, b, d, scales) =
        (rig.alloc(32 * 64 + 16), rig.alloc(16 * 64), rig.alloc(32 * 16 * 2), rig.alloc(32 * 4));
    let workspace = rig.alloc((1 << 20) + 256);
    let all = (workspace, 1 << 20);
    let algorithms = lt.algorithms(1 << 20).unwrap();
    assert_eq!(algorithms.len(), 3);
    assert_eq!(lt.algorithms(0).unwrap().len(), 1);
    let first = Some(&algorithms[0]);
    assert_eq!(lt.multiply([a, b, d, d], 0.0, first, all), INVALID, "no scales");
    assert_eq!((lt.set(17, scales), lt.set(18, scales)), (0, 0));
    assert_eq!(lt.multiply([a, b, d, d], 0.0, first, all), 0);
    assert_eq!(lt.multiply([a, b, 0, d], 0.0, first, all), 0, "no C is needed");
    assert_eq!(lt.multiply([a, b, 0, d], 1.0, first, all), INVALID);
    assert_eq!(lt.multiply([a + 16, b, d, d], 0.0, first, all), 0);
    assert_eq!(lt.multiply([a + 8, b, d, d], 0.0, first, all), UNSUPPORTED, "8-byte aligned");
    assert_eq!(lt.multiply([a + 32, b, d, d], 0.0, first, all), 13, "past the end");
    assert_eq!(lt.multiply([a, b, d, d], 0.0, first, (workspace + 16, 1 << 20)), INVALID);
    assert_eq!(lt.multiply([a, b, d, d], 0.0, first, (workspace, 1 << 19)), INVALID);
    assert_eq!(lt.multiply([a, b, d, d], 0.0, Some(&[7; 12]), all), INVALID, "no algorithm of ours");
    let other = Lt::new(&rig, &Case { shape: [32, 16, 128], ..case }).algorithms(0).unwrap();
    assert_eq!(lt.multiply([a, b, d, d], 0.0, Some(&other[0]), all), UNSUPPORTED, "of another problem");
    assert_eq!(lt.multiply([d, b, d, d], 0.0, None, (0, 0)), 13, "A is larger than D");
    assert_eq!(rig.wait(), 0);
}

#[test]
fn batches_are_multiplied_one_by_one() {
    let Some(rig) = Rig::take() else { return };
    let lt = Lt::new(
        &rig,
        &Case { types: [F32; 4], shape: [1, 1, 2], transposed: [true, false], modes: [0; 2], beta: 0.0 },
    );
    let three: c_int = 3;
    for (layout, stride) in lt.layouts.into_iter().zip([2_i64, 0, 1, 1]) {
        let set = |attribute: c_int, value: *const c_void, bytes: usize| {
            call!(rig, cublasLtMatrixLayoutSetAttribute(
                layout => usize, attribute => c_int, value => *const c_void, bytes => usize,
            ))
        };
        assert_eq!((set(5, (&raw const three).cast(), 4), set(6, (&raw const stride).cast(), 8)), (0, 0));
    }
    let (a, b, d) =
        (rig.give(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]), rig.give(&[1.0_f32, 10.0]), rig.alloc(12));
    assert_eq!(lt.multiply([a, b, d, d], 0.0, None, (0, 0)), 0);
    assert_eq!(rig.read::<f32>(d, 3), [42.0, 86.0, 130.0]);
}

#[test]
fn a_product_is_queued_recorded_and_replayed_like_a_kernel() {
    let Some(rig) = Rig::take() else { return };
    let lt = Lt::new(
        &rig,
        &Case { types: [F32; 4], shape: [1, 1, 1], transposed: [false; 2], modes: [0; 2], beta: 1.0 },
    );
    let (a, b, d) = (rig.give(&[3.0_f32]), rig.give(&[5.0_f32]), rig.give(&[0.0_f32]));
    assert_eq!(rig.wait(), 0);
    let (stream, mut graph, mut executable) = (rig.stream, 0_usize, 0_usize);
    assert_eq!(call!(rig, cuStreamBeginCapture_v2(stream => usize, 1 => c_int)), 0);
    assert_eq!(lt.multiply([a, b, d, d], 1.0, None, (0, 0)), 0);
    assert_eq!(call!(rig, cuStreamEndCapture(stream => usize, &raw mut graph => *mut usize)), 0);
    assert_eq!(rig.read::<f32>(d, 1), [0.0]);
    let code =
        call!(rig, cuGraphInstantiateWithFlags(&raw mut executable => *mut usize, graph => usize, 0 => u64));
    assert_eq!(code, 0);
    for _ in 0..2 {
        assert_eq!(call!(rig, cuGraphLaunch(executable => usize, stream => usize)), 0);
    }
    assert_eq!(rig.write(a, &[4.0_f32]), 0);
    assert_eq!(call!(rig, cuGraphLaunch(executable => usize, stream => usize)), 0);
    assert_eq!(rig.read::<f32>(d, 1), [100.0]);
}
