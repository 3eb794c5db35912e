//! The CPU as a [`Device`]: takes tensors apart by element type and calls the operations.

use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_kernels::{
    Cpu, Element as _, Elements, ElementsMut, Epilogue, Isa, Operand, Parallel, Store, bf16, gemm,
};

use crate::ops::cross_entropy::{self, Workspace};
use crate::ops::{adamw, attention, elementwise, embedding, linear, reduce, rms_norm, rope, swiglu};
use crate::{AdamW, AttentionShape, CrossEntropy, Device, RopeTable, Rotation, Tensor, Workload, space};

/// The CPU. Any instruction set and any number of threads give the same bits.
pub struct CpuDevice {
    isa: Isa,
    pool: Arc<dyn Parallel + Send + Sync>,
    f32_space: Mutex<Workspace<f32>>,
    bf16_space: Mutex<Workspace<bf16>>,
}

impl CpuDevice {
    /// A CPU that runs the kernels of `isa` on the threads of `pool`.
    pub fn new(isa: Isa, pool: Arc<dyn Parallel + Send + Sync>) -> Self {
        isa.require();
        Self { isa, pool, f32_space: Mutex::default(), bf16_space: Mutex::default() }
    }
}

impl std::fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuDevice").field("cpu", &self.cpu()).finish_non_exhaustive()
    }
}

/// Runs `$body` with each named tensor as slices of the activations' type.
///
/// Tensors of differing types in one call are a bug of the caller.
macro_rules! with_activations {
    (($($read:ident),*), ($($write:ident),*), $body:expr) => {
        match (($($read.elements(),)*), ($($write.elements_mut(),)*)) {
            (($(Elements::F32($read),)*), ($(ElementsMut::F32($write),)*)) => $body,
            (($(Elements::Bf16($read),)*), ($(ElementsMut::Bf16($write),)*)) => $body,
            #[allow(unreachable_patterns, reason = "a call with one tensor has no types to differ")]
            types => panic!("activations of one type were expected, found {types:?}"),
        }
    };
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        let threads = self.pool.threads();
        format!("cpu ({}, {threads} thread{})", self.isa.name(), if threads == 1 { "" } else { "s" })
    }

    fn cpu(&self) -> Cpu<'_> {
        Cpu::new(self.isa, &*self.pool)
    }

    fn workspace(&self, work: &Workload) -> usize {
        space::bytes(self.cpu(), work)
    }

    fn fill(&self, x: &mut Tensor, value: f32) {
        match x.elements_mut() {
            ElementsMut::F32(x) => x.fill(value),
            ElementsMut::Bf16(x) => x.fill(bf16::narrow(value)),
        }
    }

    fn embedding(&self, ids: &[u32], table: &Tensor, out: &mut Tensor) {
        let (h, cpu) = (table.cols(), self.cpu());
        with_activations!((), (out), embedding::forward(cpu, ids, table.f32(), h, out));
    }

    fn embedding_backward(&self, ids: &[u32], dout: &Tensor, dtable: &mut Tensor) {
        let (h, cpu) = (dtable.cols(), self.cpu());
        with_activations!((dout), (), embedding::backward(cpu, ids, dout, h, dtable.f32_mut()));
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, y: &mut Tensor, rstd: &mut Tensor) {
        let cpu = self.cpu();
        with_activations!((x), (y), rms_norm::forward(cpu, x, weight.f32(), eps, y, rstd.f32_mut()));
    }

    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        rstd: &Tensor,
        dx: &mut Tensor,
        dweight: &mut Tensor,
    ) {
        let (cpu, weight, rstd, dweight) = (self.cpu(), weight.f32(), rstd.f32(), dweight.f32_mut());
        with_activations!((dy, x), (dx), rms_norm::backward(cpu, dy, x, weight, rstd, dx, dweight));
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, y: &mut Tensor) {
        linear::forward(self.cpu(), x, weight, y);
    }

    fn linear_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        dx: Option<&mut Tensor>,
        accumulate_dx: bool,
        dweight: &mut Tensor,
        accumulate_dw: bool,
    ) {
        if let Some(dx) = dx {
            linear::dgrad(self.cpu(), dy, weight, accumulate_dx, dx);
        }
        linear::wgrad(self.cpu(), dy, x, accumulate_dw, dweight);
    }

    fn bias(&self, bias: &Tensor, y: &mut Tensor) {
        let cpu = self.cpu();
        with_activations!((), (y), elementwise::bias(cpu, bias.f32(), y));
    }

    fn bias_backward(&self, dy: &Tensor, dbias: &mut Tensor) {
        let cpu = self.cpu();
        with_activations!((dy), (), elementwise::bias_backward(cpu, dy, dbias.f32_mut()));
    }

    fn rope(
        &self,
        x: &mut Tensor,
        head_dim: usize,
        sequences: &[u32],
        table: &RopeTable,
        rotation: Rotation,
    ) {
        let (cpu, width) = (self.cpu(), x.cols());
        let sign = match rotation {
            Rotation::Forward => 1.0,
            Rotation::Backward => -1.0,
        };
        let (cos, sin) = (table.cos.f32(), table.sin.f32());
        with_activations!((), (x), rope::rotate_all(cpu, x, width, head_dim, sequences, cos, sin, sign));
    }

    fn attention(
        &self,
        shape: AttentionShape,
        sequences: &[u32],
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &mut Tensor,
        lse: &mut Tensor,
    ) {
        let (cpu, lse) = (self.cpu(), lse.f32_mut());
        let lse = &mut lse[..shape.heads * q.rows()];
        with_activations!((q, k, v), (out), attention::forward(cpu, shape, sequences, q, k, v, out, lse));
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        sequences: &[u32],
        dout: &Tensor,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        lse: &Tensor,
        dq: &mut Tensor,
        dk: &mut Tensor,
        dv: &mut Tensor,
    ) {
        let cpu = self.cpu();
        let lse = &lse.f32()[..shape.heads * q.rows()];
        with_activations!(
            (dout, q, k, v, out),
            (dq, dk, dv),
            attention::backward(cpu, shape, sequences, dout, q, k, v, out, lse, dq, dk, dv)
        );
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor, out: &mut Tensor) {
        let cpu = self.cpu();
        with_activations!((gate, up), (out), swiglu::forward(cpu, gate, up, out));
    }

    fn swiglu_backward(
        &self,
        dout: &Tensor,
        gate: &Tensor,
        up: &Tensor,
        dgate: &mut Tensor,
        dup: &mut Tensor,
    ) {
        let cpu = self.cpu();
        with_activations!((dout, gate, up), (dgate, dup), swiglu::backward(cpu, dout, gate, up, dgate, dup));
    }

    fn add(&self, x: &mut Tensor, y: &Tensor) {
        let cpu = self.cpu();
        with_activations!((y), (x), elementwise::add(cpu, x, y));
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        head: &Tensor,
        targets: &[i32],
        gradients: Option<(&mut Tensor, &mut Tensor, f32)>,
    ) -> CrossEntropy {
        // A workspace holds nothing between calls that a panic could have spoilt.
        match x.elements() {
            Elements::F32(x) => {
                let mut space = self.f32_space.lock().unwrap_or_else(PoisonError::into_inner);
                let gradients = gradients.map(|(dx, dhead, factor)| (dx.f32_mut(), dhead, factor));
                cross_entropy::run(self.cpu(), x, head, targets, gradients, &mut space)
            }
            Elements::Bf16(x) => {
                let mut space = self.bf16_space.lock().unwrap_or_else(PoisonError::into_inner);
                let gradients = gradients.map(|(dx, dhead, factor)| (dx.bf16_mut(), dhead, factor));
                cross_entropy::run(self.cpu(), x, head, targets, gradients, &mut space)
            }
            other => panic!("activations were expected, found {other:?}"),
        }
    }

    fn logits(&self, x: &Tensor, head: &Tensor, out: &mut Tensor) {
        let (a, b) = (Operand::rows(x.matrix()), Operand::rows(head.matrix()));
        gemm(&self.cpu(), &a, Epilogue::One, &b, Epilogue::One, Store::Overwrite, out.elements_mut());
    }

    fn convert(&self, src: &Tensor, dst: &mut Tensor) {
        let cpu = self.cpu();
        match (src.elements(), dst.elements_mut()) {
            (Elements::F32(x), ElementsMut::F32(y)) => y.copy_from_slice(x),
            (Elements::Bf16(x), ElementsMut::Bf16(y)) => y.copy_from_slice(x),
            (Elements::F32(x), ElementsMut::Bf16(y)) => elementwise::convert(cpu, x, y),
            (Elements::Bf16(x), ElementsMut::F32(y)) => elementwise::convert(cpu, x, y),
            (other, _) => panic!("floats were expected, found {other:?}"),
        }
    }

    fn accumulate(&self, dst: &mut Tensor, src: &Tensor) {
        elementwise::add(self.cpu(), dst.f32_mut(), src.f32());
    }

    fn sum_of_squares(&self, x: &Tensor) -> f64 {
        reduce::sum_of_squares(self.cpu(), x.f32())
    }

    fn adamw(&self, step: AdamW, weight: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor) {
        adamw::step(self.cpu(), step, weight.f32_mut(), grad.f32(), m.f32_mut(), v.f32_mut());
    }
}
