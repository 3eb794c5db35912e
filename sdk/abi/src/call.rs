//! The arguments of a layer's calls: tensors by reference, memory on loan.

use serde::{Deserialize, Serialize};

use crate::{TensorMut, TensorRef};
use fp8flow_kernels::Fp8;

/// Why a forward runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// For training; a backward follows.
    Train,
    /// For evaluation: nothing is saved, no state changes.
    Eval,
    /// Again, to get back what was not kept: the same scales as the first time, nothing recorded.
    Recompute,
}

/// Bytes for M tokens; each region starts at a multiple of 64, on a card of 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Kept from forward to backward, one region for the whole [`Group`].
    pub shared_saved: usize,
    /// Kept from the group's first forward to its last, one region for the whole group.
    pub shared_forward: usize,
    /// Kept from forward to backward, for this layer alone.
    pub saved: usize,
    /// Lent for the length of a forward call. One region serves all layers, so what a GEMM works in
    /// ([`fp8flow_kernels::gemm_space`]) is best asked for here.
    pub forward_scratch: usize,
    /// Lent for the length of a backward call; the same region.
    pub backward_scratch: usize,
    /// Held by the backend itself (weight caches); for the memory plan only.
    pub own: usize,
    /// Whether backward reads `x` again: then the engine keeps it and passes it.
    pub keep_input: bool,
}

/// Memory shared by layers that read the same input, so that it is cast once.
///
/// The engine calls the members in order. The first call of a pass finds `ready == false` and fills the regions;
/// the others find them filled. In an [`Pass::Eval`] pass `saved` is empty.
#[derive(Debug)]
pub struct Group<'a> {
    /// Whether an earlier member has filled the regions from this very input.
    pub ready: bool,
    /// [`Memory::shared_saved`] bytes.
    pub saved: &'a mut [u8],
    /// [`Memory::shared_forward`] bytes.
    pub forward: &'a mut [u8],
}

/// The input of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[M, K]`, bf16 or f32.
    pub tensor: TensorRef<'a>,
    /// The same, already cast as one of [`crate::Linear::input_formats`] asks, where the producer could.
    pub quantized: Option<QuantizedInput<'a>>,
}

impl<'a> From<TensorRef<'a>> for Input<'a> {
    fn from(tensor: TensorRef<'a>) -> Self {
        Self { tensor, quantized: None }
    }
}

/// An input cast by its producer: codes `[M, K]` and scales, by row and by column where asked.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedInput<'a> {
    /// Codes and scales with one scale a row.
    pub by_row: Option<(TensorRef<'a>, TensorRef<'a>)>,
    /// Codes and scales with one scale a column.
    pub by_col: Option<(TensorRef<'a>, TensorRef<'a>)>,
}

/// What a layer would like its producer to hand over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFormat {
    /// `e4m3` or `e5m2`.
    pub format: String,
    /// Which way scales run.
    pub axis: ScaleAxis,
    /// `amax_pow2` or `amax_linear`: the scale rules of `fp8flow-kernels`.
    pub rule: String,
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleAxis {
    /// One scale a row.
    Row,
    /// One scale a column.
    Col,
    /// One scale.
    Tensor,
}

/// One forward call.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Why it runs.
    pub pass: Pass,
    /// `[M, K]`.
    pub x: Input<'a>,
    /// The f32 master weight, `[N, K]`.
    pub weight: TensorRef<'a>,
    /// `[M, N]`, in the type of `x`; every element is written.
    pub y: TensorMut<'a>,
    /// Memory shared with the layers of the same input.
    pub group: Group<'a>,
    /// [`Memory::saved`] bytes; empty in [`Pass::Eval`].
    pub saved: &'a mut [u8],
    /// [`Memory::forward_scratch`] bytes, with anything in them.
    pub scratch: &'a mut [u8],
    /// Whether saturation and underflow should be counted (they cost time).
    pub telemetry: bool,
}

/// One backward call.
#[derive(Debug)]
pub struct Backward<'a> {
    /// `[M, N]`, in the type of the activations.
    pub dy: TensorRef<'a>,
    /// The f32 master weight, `[N, K]`, as in the forward.
    pub weight: TensorRef<'a>,
    /// The input, where [`Memory::keep_input`] asked for it.
    pub x: Option<TensorRef<'a>>,
    /// `[M, K]` in the type of `dy`, or none where nobody needs it.
    pub dx: Option<TensorMut<'a>>,
    /// Whether `dx` is added to what is there (f32 sum, rounded once) or overwritten.
    pub accumulate_dx: bool,
    /// `[N, K]` f32.
    pub dw: TensorMut<'a>,
    /// Whether `dw` is added to what is there or overwritten.
    pub accumulate_dw: bool,
    /// The group's [`Memory::shared_saved`] bytes, as forward left them.
    pub group_saved: &'a [u8],
    /// The layer's [`Memory::saved`] bytes, as forward left them.
    pub saved: &'a [u8],
    /// [`Memory::backward_scratch`] bytes, with anything in them.
    pub scratch: &'a mut [u8],
    /// Whether saturation and underflow should be counted.
    pub telemetry: bool,
}

/// The primitive behind every recipe: cast a matrix.
#[derive(Debug)]
pub struct Quantize<'a> {
    /// `[R, C]`, bf16 or f32.
    pub x: TensorRef<'a>,
    /// The target format.
    pub format: Fp8,
    /// Which elements share a scale.
    pub axis: ScaleAxis,
    /// Whether scales are rounded down to powers of two.
    pub power_of_two: bool,
    /// Codes, `[R, C]`.
    pub codes: TensorMut<'a>,
    /// Scales, f32: `[R]`, `[C]` or `[1]`.
    pub scales: TensorMut<'a>,
}

/// The primitive behind every GEMM: `out[i,j] = Σ_k a[i,k]·b[j,k] / (scale_a[i]·scale_b[j])`.
#[derive(Debug)]
pub struct ScaledGemm<'a> {
    /// Codes; `[I, K]`, or `[K, I]` with `transpose_a`.
    pub a: TensorRef<'a>,
    /// Whether `a` is contracted along its rows.
    pub transpose_a: bool,
    /// Multiply-to-quantise factors: `[I]` or `[1]`.
    pub scale_a: TensorRef<'a>,
    /// Codes; `[J, K]`, or `[K, J]` with `transpose_b`.
    pub b: TensorRef<'a>,
    /// Whether `b` is contracted along its rows.
    pub transpose_b: bool,
    /// Multiply-to-quantise factors: `[J]` or `[1]`.
    pub scale_b: TensorRef<'a>,
    /// `[I, J]`, f32 or bf16.
    pub out: TensorMut<'a>,
    /// Whether to add to what is there.
    pub accumulate: bool,
}
