//! Losses and gradients of logits: a chunk of tokens that have targets, between two products with the output head.
//!
//! Rows of logits and of their gradients may be longer than the vocabulary: as multiples of 8 they are read and written 16
//! bytes at a time, whatever the vocabulary.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Memory, Result, Shape, Source, source};

use super::Indices;
use super::launch::{activations, count, elements, floats, launch, vector};
use crate::{DType, Tensor};

pub(super) const SOURCE: Source = source!("cross_entropy");

/// Statistics of the rows of `logits`, of which the first `vocabulary` columns count: `lse = ln Σ exp(logit)`, `loss = lse −
/// logit[target]`, and the place of the first of the largest, which is written as a `u32` from byte `best.1` of `best.0` on.
pub fn statistics(
    card: &Card,
    logits: &Tensor,
    vocabulary: usize,
    targets: Indices<'_>,
    lse: &mut Tensor,
    loss: &mut Tensor,
    best: (&Memory, usize),
) -> Result<()> {
    const THREADS: u32 = 512;
    floats(card, &[logits, lse, loss]);
    check(logits, vocabulary, targets);
    let (rows, (best, offset)) = (logits.rows(), best);
    assert!(elements(lse) >= rows && elements(loss) >= rows, "room for statistics");
    assert!(
        offset.is_multiple_of(size_of::<u32>()) && best.bytes() >= offset + Indices::bytes(rows),
        "room for places"
    );
    let arguments = [
        logits.address(),
        logits.cols().into(),
        count(vocabulary),
        targets.address(),
        lse.address(),
        loss.address(),
        best.at(offset),
    ];
    // SAFETY: a block has a row of logits, a target below the vocabulary, and room for its statistics.
    unsafe { launch(card, SOURCE, "statistics", DType::F32, Shape::new(rows, THREADS), &arguments) }
}

/// `out = (softmax − onehot) · factor` over the first `vocabulary` columns, zeros from there on.
pub fn gradient(
    card: &Card,
    logits: &Tensor,
    vocabulary: usize,
    targets: Indices<'_>,
    lse: &Tensor,
    factor: f32,
    out: &mut Tensor,
) -> Result<()> {
    const THREADS: usize = 256;
    floats(card, &[logits, lse]);
    let dtype = activations(card, &[out]);
    check(logits, vocabulary, targets);
    let (rows, ld) = (logits.rows(), out.cols());
    assert!(out.rows() == rows && ld >= vocabulary, "room for gradients");
    assert!(elements(lse) >= rows, "a statistic a row");
    let arguments = [
        logits.address(),
        logits.cols().into(),
        count(vocabulary),
        targets.address(),
        lse.address(),
        factor.into(),
        out.address(),
        count(ld),
    ];
    let wide = logits.cols().is_multiple_of(vector(DType::F32)) && ld.is_multiple_of(vector(dtype));
    let each = if wide { vector(dtype) } else { 1 };
    let shape = Shape { blocks: [(ld / each).div_ceil(THREADS), rows, 1], ..Shape::new(1, THREADS as u32) };
    // SAFETY: blocks have the rows of logits and of out along y, with a target and a statistic of each, and the ld columns
    // of out along x, of which no more than the vocabulary are read of the logits.
    unsafe { launch(card, SOURCE, "gradient", dtype, shape, &arguments) }
}

fn check(logits: &Tensor, vocabulary: usize, targets: Indices<'_>) {
    assert!(vocabulary <= logits.cols(), "{vocabulary} of {} logits", logits.cols());
    assert!(targets.len() == logits.rows() && targets.bound() <= vocabulary, "a target of each row");
}
