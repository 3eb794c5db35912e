//! AdamW over all parameters: moments, decay by kind, clipping by the global norm.

use fp8flow_model::{ParameterKind, ParameterSpec, Parameters};
use fp8flow_tensor::{AdamW, CardError, Device};

use crate::invariants::Movement;

/// Which parameters decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decayed {
    /// Two-dimensional ones: embeddings and weights of linear layers, no norms and biases.
    Matrices,
    /// Every one.
    All,
}

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Decays of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// What decays.
    pub decayed: Decayed,
    /// Largest global norm of the gradient; 0 for no limit.
    pub clip: f64,
}

/// First and second moments of every parameter, f32.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// First moments.
    pub m: Parameters,
    /// Second moments.
    pub v: Parameters,
}

/// Norm of a gradient, or the first parameter whose gradient is infinite or NaN.
pub type Norm = Result<f64, String>;

impl Optimizer {
    /// Moments of zero.
    pub fn new(
        config: OptimizerConfig,
        device: &dyn Device,
        specs: &[ParameterSpec],
    ) -> Result<Self, CardError> {
        let [m, v] = [Parameters::zeros_on(device, specs)?, Parameters::zeros_on(device, specs)?];
        Ok(Self { config, m, v })
    }

    /// The 2-norm over all parameters (of gradients, or of the masters), summed in their order in f64.
    pub fn norm(device: &dyn Device, gradients: &Parameters) -> Norm {
        let mut sum = 0.0;
        let tensors: Vec<_> = gradients.tensors().iter().collect();
        for (spec, squares) in gradients.specs().iter().zip(device.sums_of_squares(&tensors)) {
            if !squares.is_finite() {
                return Err(spec.name.clone());
            }
            sum += squares;
        }
        Ok(sum.sqrt())
    }

    /// The factor that brings a gradient of `norm` within the limit, as `torch.nn.utils.clip_grad_norm_` has it.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        if self.config.clip > 0.0 { (self.config.clip / (norm + 1e-6)).min(1.0) } else { 1.0 }
    }

    /// Step `step`, counted from 1, with a gradient of `norm`; `movement` sees what it does to each parameter.
    pub(crate) fn step(
        &mut self,
        device: &dyn Device,
        step: u64,
        rate: f64,
        norm: f64,
        parameters: &mut Parameters,
        gradients: &Parameters,
        movement: &mut Movement,
    ) -> Result<(), CardError> {
        let OptimizerConfig { betas, eps, weight_decay, decayed, .. } = self.config;
        let grad_scale = self.clip_factor(norm) as f32;
        for i in 0..parameters.specs().len() {
            let kind = parameters.specs()[i].kind;
            let vector = matches!(kind, ParameterKind::Norm | ParameterKind::Bias);
            let decays = decayed == Decayed::All || !vector;
            let constants = AdamW {
                lr: rate as f32,
                beta1: betas[0] as f32,
                beta2: betas[1] as f32,
                eps: eps as f32,
                weight_decay: if decays { weight_decay as f32 } else { 0.0 },
                bias_correction1: (1.0 - power(betas[0], step)) as f32,
                bias_correction2: (1.0 - power(betas[1], step)) as f32,
                grad_scale,
            };
            let (m, v) = (&mut self.m.tensors_mut()[i], &mut self.v.tensors_mut()[i]);
            let (weight, gradient) = (&mut parameters.tensors_mut()[i], &gradients.tensors()[i]);
            let probes = movement.before(i, &constants, [&*weight, gradient, &*m, &*v])?;
            device.adamw(constants, weight, gradient, m, v);
            movement.after(i, &probes, weight)?;
        }
        Ok(())
    }
}

/// `x^n` by squaring: the same bits everywhere, which `powi` does not promise.
fn power(mut x: f64, mut n: u64) -> f64 {
    let mut result = 1.0;
    while n > 0 {
        if n & 1 == 1 {
            result *= x;
        }
        x *= x;
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fp8flow_kernels::{Isa, Serial};
    use fp8flow_tensor::CpuDevice;

    use super::*;

    fn device() -> CpuDevice {
        CpuDevice::new(Isa::best(), Arc::new(Serial))
    }

    #[test]
    fn powers_by_squaring() {
        assert_eq!(power(3.0, 0), 1.0);
        assert_eq!(power(3.0, 13), 1_594_323.0);
        assert!((power(0.95, 1000) - 0.95_f64.powi(1000)).abs() < 1e-30);
    }

    #[test]
    fn a_gradient_within_the_limit_is_left_alone() {
        let config = OptimizerConfig {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
            decayed: Decayed::All,
            clip: 1.0,
        };
        let optimizer = Optimizer::new(config, &device(), &[]).unwrap();
        assert_eq!(optimizer.clip_factor(0.5), 1.0);
        assert!((optimizer.clip_factor(4.0) - 0.25).abs() < 1e-6);
        let unlimited = Optimizer::new(OptimizerConfig { clip: 0.0, ..config }, &device(), &[]).unwrap();
        assert_eq!(unlimited.clip_factor(1e9), 1.0);
    }
}
