//! AdamW (Loshchilov and Hutter 2019) with decoupled decay, in the order of operations of `torch.optim.AdamW`.
//!
//! One pass: reads weight, gradient and both moments, writes all but the gradient: 28 bytes a parameter.

use fp8flow_kernels::{Cpu, multiversion};

use super::ELEMENTS_PER_TASK;
use crate::AdamW;
use crate::parts::Parts;

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
    let weights = Parts::new(weight, ELEMENTS_PER_TASK);
    let (ms, vs) = (Parts::new(m, ELEMENTS_PER_TASK), Parts::new(v, ELEMENTS_PER_TASK));
    cpu.pool.run(weights.count(), &|task| {
        let weight = weights.claim(task);
        let grad = &grad[task * ELEMENTS_PER_TASK..][..weight.len()];
        step_slice(cpu.isa, step, weight, grad, ms.claim(task), vs.claim(task));
    });
}
