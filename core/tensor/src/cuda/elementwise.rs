//! Element by element: residual addition, accumulation, conversion.

#![allow(unsafe_code)]

use fp8flow_cuda::{Arg, Card, Result, Source, source};
use fp8flow_kernels::{Element as _, bf16};

use super::launch::{activations, elements, launch, shape_of, vector, vectors};
use crate::{DType, Tensor};

pub(super) const SOURCE: Source = source!("elementwise");

/// `x += y`: the residual connection, and the gradients of micro-batches.
pub fn add(card: &Card, x: &mut Tensor, y: &Tensor) -> Result<()> {
    let dtype = activations(card, &[x, y]);
    shape_of(&[x, y]);
    let n = elements(x);
    // SAFETY: two tensors of n elements of this type.
    unsafe {
        launch(card, SOURCE, "add", dtype, vectors(n, vector(dtype)), &[x.address(), y.address(), n.into()])
    }
}

/// `dst = src`, converted to the type of `dst`; the bits as they are if that is its own.
pub fn convert(card: &Card, src: &Tensor, dst: &mut Tensor) -> Result<()> {
    /// Elements of a thread.
    const EACH: usize = 8;
    activations(card, &[src]);
    activations(card, &[dst]);
    let n = elements(src);
    assert_eq!(elements(dst), n, "as many elements");
    if src.dtype() == dst.dtype() {
        let ((from, start, bytes), (to, offset, _)) = (src.stretch(), dst.stretch());
        return to.copy(offset, from, start, bytes);
    }
    // SAFETY: two tensors of n elements of the one and the other type.
    unsafe {
        launch(
            card,
            SOURCE,
            "convert",
            src.dtype(),
            vectors(n, EACH),
            &[src.address(), dst.address(), n.into()],
        )
    }
}

/// Sets every element in use to zero.
pub fn clear(x: &mut Tensor) -> Result<()> {
    let (memory, offset, bytes) = x.stretch();
    memory.fill(offset, bytes, 0)
}

/// Sets every element in use to `value`: an f32 to its very bits, a bf16 to what it is rounded to.
pub fn fill(card: &Card, x: &mut Tensor, value: f32) -> Result<()> {
    let (n, dtype) = (elements(x), x.dtype());
    let bits = match dtype {
        DType::F32 => value.to_bits(),
        DType::Bf16 => bf16::narrow(value).to_bits().into(),
    };
    let shape = vectors(n, vector(dtype));
    // SAFETY: there are n elements.
    unsafe { launch(card, SOURCE, "fill", dtype, shape, &[x.address(), Arg::U32(bits), n.into()]) }
}

/// `dst += src`, both f32.
pub fn accumulate(card: &Card, dst: &mut Tensor, src: &Tensor) -> Result<()> {
    assert_eq!(dst.dtype(), DType::F32, "f32 tensors");
    add(card, dst, src)
}
