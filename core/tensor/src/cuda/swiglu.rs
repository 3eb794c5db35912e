//! SwiGLU, and its gradients.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Source, source};

use super::launch::{activations, elements, launch, shape_of, vector, vectors};
use crate::Tensor;

pub(super) const SOURCE: Source = source!("swiglu");

/// `out = silu(gate) · up`.
pub fn forward(card: &Card, gate: &Tensor, up: &Tensor, out: &mut Tensor) -> Result<()> {
    let tensors = [gate, up, &*out];
    let dtype = activations(card, &tensors);
    shape_of(&tensors);
    let n = elements(out);
    let arguments = [gate.address(), up.address(), out.address(), n.into()];
    // SAFETY: tensors of n elements of this type.
    unsafe { launch(card, SOURCE, "swiglu", dtype, vectors(n, vector(dtype)), &arguments) }
}

/// Gradients of [`forward`].
pub fn backward(
    card: &Card,
    dout: &Tensor,
    gate: &Tensor,
    up: &Tensor,
    dgate: &mut Tensor,
    dup: &mut Tensor,
) -> Result<()> {
    let tensors = [dout, gate, up, &*dgate, &*dup];
    let dtype = activations(card, &tensors);
    shape_of(&tensors);
    let n = elements(dout);
    let [dout, gate, up, dgate, dup] = tensors.map(Tensor::address);
    let arguments = [dout, gate, up, dgate, dup, n.into()];
    // SAFETY: tensors of n elements of this type.
    unsafe { launch(card, SOURCE, "swiglu_backward", dtype, vectors(n, vector(dtype)), &arguments) }
}
