//! The memory-bound operations on a card have the bits of the CPU's, for any width and any number of tokens.

#![allow(clippy::unwrap_used, reason = "a card that fails fails the test")]

mod elementwise;
mod embedding;
mod inspect;
mod loss;
mod rms_norm;
mod sums;

use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_cuda::Card;
use fp8flow_kernels::{Elements, Isa, Serial, bf16, philox::Philox};
use fp8flow_tensor::{CpuDevice, DType, Tensor};

/// Tokens around the borders of warps and of blocks of tokens.
const TOKENS: [usize; 6] = [0, 1, 63, 64, 65, 131];

/// Widths with vectors and without.
const WIDTHS: [usize; 8] = [1, 8, 15, 16, 17, 100, 136, 1032];

/// Types of activations.
const DTYPES: [DType; 2] = [DType::Bf16, DType::F32];

/// Bytes behind an operand that must stay as they are.
const GUARD: usize = 256;

/// What memory holds that nobody has written.
const POISON: u8 = 0xab;

/// A card and its specification.
fn setup() -> Option<(Card, CpuDevice)> {
    Some((card()?, CpuDevice::new(Isa::best(), Arc::new(Serial))))
}

/// Normal numbers on the CPU; if `rough`, with some that are none, infinite, tiny or huge.
fn random(stream: u64, dtype: DType, rows: usize, cols: usize, rough: bool) -> Tensor {
    const ROUGH: [f32; 7] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38, -3e38];
    let philox = Philox::new(1, "ops");
    let n = rows * cols;
    let mut x: Vec<f32> = (0..n).map(|i| philox.normal_pair(stream, i as u64)[0]).collect();
    if rough {
        for (i, value) in ROUGH.into_iter().enumerate().take(n) {
            x[(stream as usize + i * n / ROUGH.len()) % n] = value;
        }
    }
    let mut tensor = Tensor::zeros(dtype, rows, cols);
    match dtype {
        DType::F32 => tensor.f32_mut().copy_from_slice(&x),
        DType::Bf16 => tensor.bf16_mut().iter_mut().zip(x).for_each(|(to, x)| *to = bf16::from_f32(x)),
    }
    tensor
}

/// Room for a result on the card, poisoned.
fn room(card: &Card, dtype: DType, rows: usize, cols: usize) -> Tensor {
    let memory = card.take(rows * cols * dtype.size() + GUARD).unwrap();
    memory.fill(0, memory.bytes(), POISON).unwrap();
    Tensor::on_card(Arc::new(memory), 0, dtype, rows, cols)
}

/// A copy on the card.
fn copied(card: &Card, x: &Tensor) -> Tensor {
    let (copy, guarded) = (x.copy_to(card).unwrap(), room(card, x.dtype(), x.rows(), x.cols()));
    let ((from, start, bytes), (to, offset, _)) = (copy.stretch(), guarded.stretch());
    to.copy(offset, from, start, bytes).unwrap();
    guarded
}

/// The bits of a tensor, which has left alone what lies behind it.
fn bits(x: &Tensor) -> Vec<u32> {
    if x.card().is_some() {
        let (memory, offset, bytes) = x.stretch();
        let mut behind = [0; GUARD];
        memory.read(offset + bytes, &mut behind).unwrap();
        assert_eq!(behind, [POISON; GUARD], "what lies behind a tensor");
    }
    let here = x.here().unwrap();
    match here.elements() {
        Elements::F32(x) => x.iter().map(|x| x.to_bits()).collect(),
        Elements::Bf16(x) => x.iter().map(|x| u32::from(x.to_bits())).collect(),
        other => panic!("floats were expected, found {other:?}"),
    }
}

/// Both hold the same bits.
fn same(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dtype(), expected.dtype());
    first_difference(what, &bits(found), &bits(expected));
}

/// Both hold the same numbers, f32: a sum that is none has bits that depend on the instructions that made it.
fn same_numbers(what: &str, found: &Tensor, expected: &Tensor) {
    let numbers = |x: &Tensor| -> Vec<u32> {
        assert_eq!(x.dtype(), DType::F32);
        let quiet = |bits| if f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits };
        bits(x).into_iter().map(quiet).collect()
    };
    first_difference(what, &numbers(found), &numbers(expected));
}

fn first_difference(what: &str, found: &[u32], expected: &[u32]) {
    assert_eq!(found.len(), expected.len(), "{what}: elements");
    let different = found.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(i) = different {
        panic!("{what}: element {i} of {} is {:#010x}, not {:#010x}", found.len(), found[i], expected[i]);
    }
}

/// Every type of activations, smooth and rough, with every number of tokens and width.
fn cases() -> impl Iterator<Item = (DType, bool, usize, usize)> {
    let shapes = TOKENS.into_iter().flat_map(|tokens| WIDTHS.map(|width| (tokens, width)));
    shapes.flat_map(|(tokens, width)| {
        DTYPES.into_iter().flat_map(move |dtype| [false, true].map(|rough| (dtype, rough, tokens, width)))
    })
}
