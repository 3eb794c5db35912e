//! A bias, and its gradient.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Shape, Source, source};

use super::launch::{activations, column_blocks, count, elements, floats, launch};
use super::reduce::{self, token_blocks};
use crate::Tensor;

pub(super) const SOURCE: Source = source!("bias");

/// Threads of a block.
const THREADS: u32 = 128;

/// `y[t] += bias`, the bias rounded to the type of `y` first.
pub fn forward(card: &Card, bias: &Tensor, y: &mut Tensor) -> Result<()> {
    let dtype = activations(card, &[y]);
    floats(card, &[bias]);
    let (tokens, width) = (y.rows(), y.cols());
    assert_eq!(elements(bias), width, "a bias a column");
    let arguments = [bias.address(), y.address(), count(width)];
    // SAFETY: a block has a row of y, as wide as the bias is long.
    unsafe { launch(card, SOURCE, "bias", dtype, Shape::new(tokens, THREADS), &arguments) }
}

/// `dbias += Σ_t dy[t]`; works in the first [`reduce::partial_floats`] floats of `partial`.
pub fn backward(card: &Card, dy: &Tensor, dbias: &mut Tensor, partial: &mut Tensor) -> Result<()> {
    let dtype = activations(card, &[dy]);
    floats(card, &[dbias, partial]);
    let (tokens, width) = (dy.rows(), dy.cols());
    assert_eq!(elements(dbias), width, "a gradient a column");
    assert!(elements(partial) >= reduce::partial_floats(tokens, width), "room for partial sums");
    let blocks = [token_blocks(tokens), column_blocks(width, dtype, THREADS as usize), 1];
    let arguments = [dy.address(), partial.address(), count(tokens), count(width)];
    let shape = Shape { blocks, ..Shape::new(1, THREADS) };
    // SAFETY: dy is [tokens, width], and there is room for a row of sums of each block of tokens.
    unsafe { launch(card, SOURCE, "bias_backward", dtype, shape, &arguments)? };
    reduce::add_rows(card, partial, token_blocks(tokens), dbias)
}
