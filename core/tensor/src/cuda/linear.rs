//! Products with weights in high precision: linear layers, and the output head.

#![allow(unsafe_code)]

use fp8flow_cuda::Result;
use fp8flow_cuda::gemm::{Addresses, Format, Gemm, Operand, Output, Product};

use crate::{DType, Tensor};

/// `y = x·Wᵀ`.
pub(super) fn forward(gemm: &Gemm, x: &Tensor, weight: &Tensor, y: &mut Tensor) -> Result<()> {
    multiply(gemm, rows(x), rows(weight), false, y)
}

/// `dx (+)= dy·W`.
pub(super) fn dgrad(
    gemm: &Gemm,
    dy: &Tensor,
    weight: &Tensor,
    accumulate: bool,
    dx: &mut Tensor,
) -> Result<()> {
    multiply(gemm, rows(dy), transposed(weight), accumulate, dx)
}

/// `dW (+)= dyᵀ·x`.
pub(super) fn wgrad(
    gemm: &Gemm,
    dy: &Tensor,
    x: &Tensor,
    accumulate: bool,
    dweight: &mut Tensor,
) -> Result<()> {
    multiply(gemm, transposed(dy), transposed(x), accumulate, dweight)
}

/// `logits = x·headᵀ`, into rows that may be longer than the vocabulary.
pub(super) fn logits(gemm: &Gemm, x: &Tensor, head: &Tensor, logits: &mut Tensor) -> Result<()> {
    multiply(gemm, rows(x), rows(head), false, logits)
}

/// `dx = dlogits·head` and `dhead += dlogitsᵀ·x`, of logits whose rows may be longer than the vocabulary.
pub(super) fn head_backward(
    gemm: &Gemm,
    dlogits: &Tensor,
    x: &Tensor,
    head: &Tensor,
    dx: &mut Tensor,
    dhead: &mut Tensor,
) -> Result<()> {
    let vocabulary = head.rows();
    multiply(gemm, rows(dlogits).of(dlogits.rows(), vocabulary), transposed(head), false, dx)?;
    multiply(gemm, transposed(dlogits).of(vocabulary, dlogits.rows()), transposed(x), true, dhead)
}

/// A tensor as one side of a product: `lines × depth` of its elements, whichever way they lie.
#[derive(Clone, Copy)]
struct Side<'a> {
    tensor: &'a Tensor,
    operand: Operand,
    lines: usize,
    depth: usize,
}

impl Side<'_> {
    /// The first `lines × depth` of it.
    fn of(self, lines: usize, depth: usize) -> Self {
        assert!(lines <= self.lines && depth <= self.depth, "{lines} by {depth}");
        Self { lines, depth, ..self }
    }
}

/// Contracted along its rows' elements.
fn rows(tensor: &Tensor) -> Side<'_> {
    let operand = Operand::rows(format(tensor), tensor.cols());
    Side { tensor, operand, lines: tensor.rows(), depth: tensor.cols() }
}

/// Contracted along its columns' elements.
fn transposed(tensor: &Tensor) -> Side<'_> {
    let operand = Operand::transposed(format(tensor), tensor.cols());
    Side { tensor, operand, lines: tensor.cols(), depth: tensor.rows() }
}

fn format(tensor: &Tensor) -> Format {
    match tensor.dtype() {
        DType::F32 => Format::F32,
        DType::Bf16 => Format::Bf16,
    }
}

/// `d (+)= a·bᵀ`, into the first columns of `d`.
fn multiply(gemm: &Gemm, a: Side<'_>, b: Side<'_>, accumulate: bool, d: &mut Tensor) -> Result<()> {
    assert_eq!(
        (a.depth, a.lines),
        (b.depth, d.rows()),
        "one contraction, and a row of the result for each line"
    );
    assert!(b.lines <= d.cols(), "a column of the result for each line");
    let output = match d.dtype() {
        DType::F32 => Output::F32,
        DType::Bf16 => Output::Bf16,
    };
    let product = Product::new([a.lines, b.lines, a.depth], a.operand, b.operand, output).into_rows(d.cols());
    let product = if accumulate { product.accumulated() } else { product };
    let [at_a, at_b, at_d] = [a.tensor, b.tensor, &*d].map(Tensor::card_address);
    let addresses = Addresses { a: at_a, b: at_b, d: at_d, factor_a: None, factor_b: None };
    // SAFETY: every side has lines and depth within its tensor, and so has the result; tensors that one call reads and
    // writes are borrowed so.
    unsafe { gemm.plan(&product)?.run(&addresses) }
}
