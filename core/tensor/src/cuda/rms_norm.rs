//! RMSNorm, and its gradients.
//!
//! A row lies in a block's shared memory, forward once and backward beside that of `dy`: on a Hopper, rows of up to
//! 58,000 bf16 elements or half as many floats.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Shape, Source, source};

use super::launch::{activations, column_blocks, count, elements, floats, launch, shape_of};
use super::reduce::{self, token_blocks};
use crate::Tensor;

pub(super) const SOURCE: Source = source!("rms_norm");

/// Threads of a block.
const THREADS: u32 = 128;

/// `y[t] = x[t] · rstd[t] · weight`; `rstd: [1, T]`.
pub fn forward(
    card: &Card,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    y: &mut Tensor,
    rstd: &mut Tensor,
) -> Result<()> {
    let dtype = activations(card, &[x, y]);
    floats(card, &[weight, rstd]);
    let (tokens, h) = shape_of(&[x, y]);
    assert_eq!(elements(weight), h, "a weight a column");
    assert!(elements(rstd) >= tokens, "a statistic a row");
    let shape = Shape { shared: (h * dtype.size()) as u32, ..Shape::new(tokens, THREADS) };
    let arguments = [x.address(), weight.address(), eps.into(), y.address(), rstd.address(), count(h)];
    // SAFETY: a block has a row of h elements of x, y and shared memory, and one float of rstd.
    unsafe { launch(card, SOURCE, "rms_norm", dtype, shape, &arguments) }
}

/// `dx += ∂/∂x`, `dweight += ∂/∂weight`; works in the first [`reduce::partial_floats`] floats of `partial`.
pub fn backward(
    card: &Card,
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    dx: &mut Tensor,
    dweight: &mut Tensor,
    partial: &mut Tensor,
) -> Result<()> {
    let dtype = activations(card, &[dy, x, dx]);
    floats(card, &[weight, rstd, dweight, partial]);
    let (tokens, h) = shape_of(&[dy, x, dx]);
    assert_eq!((elements(weight), elements(dweight)), (h, h), "a weight a column");
    assert!(elements(rstd) >= tokens, "a statistic a row");
    assert!(elements(partial) >= reduce::partial_floats(tokens, h), "room for partial sums");
    let arguments = [dy.address(), x.address(), rstd.address(), partial.address(), count(tokens), count(h)];
    let blocks = [token_blocks(tokens), column_blocks(h, dtype, THREADS as usize), 1];
    let shape = Shape { blocks, ..Shape::new(1, THREADS) };
    // SAFETY: dy and x are [tokens, h], rstd has a float a token, and there is room for a row of sums of each block of
    // tokens.
    unsafe { launch(card, SOURCE, "rms_norm_dweight", dtype, shape, &arguments)? };
    reduce::add_rows(card, partial, token_blocks(tokens), dweight)?;
    let shape = Shape { shared: (2 * h * dtype.size()) as u32, ..Shape::new(tokens, THREADS) };
    let arguments = [dy.address(), x.address(), weight.address(), rstd.address(), dx.address(), count(h)];
    // SAFETY: a block has a row of h elements of dy, x and dx, two of shared memory, and one float of rstd.
    unsafe { launch(card, SOURCE, "rms_norm_dx", dtype, shape, &arguments) }
}
