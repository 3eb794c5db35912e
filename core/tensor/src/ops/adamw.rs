//! AdamW (Loshchilov and Hutter 2019) with decoupled decay, in the order of operations of `torch.optim.AdamW`.
//!
//! One pass: reads weight, gradient and both moments, writes all but the gradient: 28 bytes a parameter.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Cpu, multiversion};

use super::ELEMENTS_PER_TASK;
use crate::AdamW;

multiversion! {
    fn step_slice(step: AdamW, weight: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        let keep = 1.0 - step.lr * step.weight_decay;
        let step_size = step.lr / step.bias_correction1;
        let root = step.bias_correction2.sqrt();
        for (((w, g), m), v) in weight.iter_mut().zip(grad).zip(m).zip(v) {
            let g = g * step.grad_scale;
            *m += (1.0 - step.beta1) * (g - *m);
            *v = *v * step.beta2 + (1.0 - step.beta2) * (g * g);
            let denominator = v.sqrt() / root + step.eps;
            *w = *w * keep - step_size * (*m / denominator);
        }
    }
}

pub(crate) fn step(
    cpu: Cpu<'_>,
    step: AdamW,
    weight: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let weights = weight.chunks_mut(ELEMENTS_PER_TASK).zip(grad.chunks(ELEMENTS_PER_TASK));
    let moments = m.chunks_mut(ELEMENTS_PER_TASK).zip(v.chunks_mut(ELEMENTS_PER_TASK));
    for_each(cpu.pool, weights.zip(moments), |((weight, grad), (m, v))| {
        step_slice(cpu.isa, step, weight, grad, m, v);
    });
}
