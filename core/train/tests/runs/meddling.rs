//! A device that does what the CPU does, but for one thing.

use std::sync::atomic::{AtomicUsize, Ordering};

use fp8flow_kernels::Cpu;
use fp8flow_tensor::{
    AdamW, AttentionShape, CpuDevice, CrossEntropy, Device, RopeTable, Rotation, Tensor, Workload,
};

use crate::common::cpu;

/// What it does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meddle {
    /// Steps all parameters but this one.
    SkipStep(usize),
    /// Steps this parameter twice.
    StepTwice(usize),
    /// Leaves out the gradients of norms.
    SkipNorms,
}

pub(crate) struct Meddling {
    cpu: CpuDevice,
    meddle: Meddle,
    parameters: usize,
    steps: AtomicUsize,
}

impl Meddling {
    /// With `parameters` parameters in all.
    pub(crate) fn new(meddle: Meddle, parameters: usize) -> Self {
        Self { cpu: cpu(), meddle, parameters, steps: AtomicUsize::new(0) }
    }
}

macro_rules! as_the_cpu {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self $(, $argument: $type)*) $(-> $result)? {
            self.cpu.$name($($argument),*)
        })*
    };
}

#[rustfmt::skip]
impl Device for Meddling {
    as_the_cpu! {
        fn name(&self) -> String;
        fn fill(&self, x: &mut Tensor, value: f32);
        fn cpu(&self) -> Cpu<'_>;
        fn workspace(&self, work: &Workload) -> usize;
        fn embedding(&self, ids: &[u32], table: &Tensor, out: &mut Tensor);
        fn embedding_backward(&self, ids: &[u32], dout: &Tensor, dtable: &mut Tensor);
        fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, y: &mut Tensor, rstd: &mut Tensor);
        fn linear(&self, x: &Tensor, weight: &Tensor, y: &mut Tensor);
        fn linear_backward(&self, dy: &Tensor, x: &Tensor, weight: &Tensor, dx: Option<&mut Tensor>, accumulate_dx: bool, dweight: &mut Tensor, accumulate_dw: bool);
        fn bias(&self, bias: &Tensor, y: &mut Tensor);
        fn bias_backward(&self, dy: &Tensor, dbias: &mut Tensor);
        fn rope(&self, x: &mut Tensor, head_dim: usize, sequences: &[u32], table: &RopeTable, rotation: Rotation);
        fn attention(&self, shape: AttentionShape, sequences: &[u32], q: &Tensor, k: &Tensor, v: &Tensor, out: &mut Tensor, lse: &mut Tensor);
        fn attention_backward(&self, shape: AttentionShape, sequences: &[u32], dout: &Tensor, q: &Tensor, k: &Tensor, v: &Tensor, out: &Tensor, lse: &Tensor, dq: &mut Tensor, dk: &mut Tensor, dv: &mut Tensor);
        fn swiglu(&self, gate: &Tensor, up: &Tensor, out: &mut Tensor);
        fn swiglu_backward(&self, dout: &Tensor, gate: &Tensor, up: &Tensor, dgate: &mut Tensor, dup: &mut Tensor);
        fn add(&self, x: &mut Tensor, y: &Tensor);
        fn cross_entropy(&self, x: &Tensor, head: &Tensor, targets: &[i32], gradients: Option<(&mut Tensor, &mut Tensor, f32)>) -> CrossEntropy;
        fn logits(&self, x: &Tensor, head: &Tensor, out: &mut Tensor);
        fn convert(&self, src: &Tensor, dst: &mut Tensor);
        fn accumulate(&self, dst: &mut Tensor, src: &Tensor);
        fn sum_of_squares(&self, x: &Tensor) -> f64;
    }

    fn rms_norm_backward(&self, dy: &Tensor, x: &Tensor, weight: &Tensor, rstd: &Tensor, dx: &mut Tensor, dweight: &mut Tensor) {
        let mut elsewhere = Tensor::zeros(dweight.dtype(), dweight.rows(), dweight.cols());
        let dweight = if self.meddle == Meddle::SkipNorms { &mut elsewhere } else { dweight };
        self.cpu.rms_norm_backward(dy, x, weight, rstd, dx, dweight);
    }

    fn adamw(&self, step: AdamW, weight: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor) {
        let at = self.steps.fetch_add(1, Ordering::Relaxed) % self.parameters;
        let times = match self.meddle {
            Meddle::SkipStep(skipped) if at == skipped => 0,
            Meddle::StepTwice(doubled) if at == doubled => 2,
            _ => 1,
        };
        for _ in 0..times {
            self.cpu.adamw(step, weight, grad, m, v);
        }
    }
}
