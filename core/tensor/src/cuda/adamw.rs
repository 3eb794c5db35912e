//! AdamW.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Source, source};

use super::launch::{elements, floats, launch, shape_of, vector, vectors};
use crate::{AdamW, DType, Tensor};

pub(super) const SOURCE: Source = source!("adamw");

/// One step over a parameter and its moments.
pub fn step(
    card: &Card,
    step: AdamW,
    weight: &mut Tensor,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
) -> Result<()> {
    let tensors = [&*weight, grad, &*m, &*v];
    floats(card, &tensors);
    shape_of(&tensors);
    let n = elements(grad);
    // What the CPU makes of the constants, in its order.
    let keep = 1.0 - step.lr * step.weight_decay;
    let step_size = step.lr / step.bias_correction1;
    let root = step.bias_correction2.sqrt();
    let (gain1, gain2) = (1.0 - step.beta1, 1.0 - step.beta2);
    let [weight, grad, m, v] = tensors.map(Tensor::address);
    let arguments = [
        weight,
        grad,
        m,
        v,
        n.into(),
        step.grad_scale.into(),
        gain1.into(),
        step.beta2.into(),
        gain2.into(),
        root.into(),
        step.eps.into(),
        keep.into(),
        step_size.into(),
    ];
    // SAFETY: four tensors of n floats.
    unsafe { launch(card, SOURCE, "adamw", DType::F32, vectors(n, vector(DType::F32)), &arguments) }
}
