//! A device that delegates to another, and notes how long each operation took.

use std::sync::Arc;

use fp8flow_kernels::Cpu;
use fp8flow_tensor::{
    AdamW, AttentionShape, Card, CardError, CrossEntropy, Device, RopeTable, Rotation, Tensor, Workload,
};

use crate::parts::ledger::{Ledger, Part};
use crate::parts::work::{self, Work, each};

/// A device, timed.
pub(crate) struct TimedDevice<'a> {
    device: &'a dyn Device,
    ledger: Arc<Ledger>,
}

impl<'a> TimedDevice<'a> {
    pub(crate) fn new(device: &'a dyn Device, ledger: Arc<Ledger>) -> Self {
        Self { device, ledger }
    }

    fn time<T>(&self, part: Part, work: Work, call: impl FnOnce(&dyn Device) -> T) -> T {
        self.ledger.time(part, Some(work), || call(self.device))
    }
}

impl Device for TimedDevice<'_> {
    fn name(&self) -> String {
        self.device.name()
    }

    fn cpu(&self) -> Cpu<'_> {
        self.device.cpu()
    }

    fn workspace(&self, work: &Workload) -> usize {
        self.device.workspace(work)
    }

    fn card(&self) -> Option<&Card> {
        self.device.card()
    }

    fn settle(&self) -> Result<(), CardError> {
        self.device.settle()
    }

    fn fill(&self, x: &mut Tensor, value: f32) {
        self.device.fill(x, value);
    }

    fn embedding(&self, ids: &[u32], table: &Tensor, out: &mut Tensor) {
        let work = work::embedding(0, out, 1);
        self.time(Part::EmbeddingForward, work, |device| device.embedding(ids, table, out));
    }

    fn embedding_backward(&self, ids: &[u32], dout: &Tensor, dtable: &mut Tensor) {
        let work = work::embedding(1, dout, 2);
        self.time(Part::EmbeddingBackward, work, |device| device.embedding_backward(ids, dout, dtable));
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, y: &mut Tensor, rstd: &mut Tensor) {
        let work = each(4, x, &[x, weight], &[y, rstd]);
        self.time(Part::RmsNormForward, work, |device| device.rms_norm(x, weight, eps, y, rstd));
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
        let work = each(10, x, &[dy, x, weight, rstd, dx, dweight], &[dx, dweight]);
        self.time(Part::RmsNormBackward, work, |device| {
            device.rms_norm_backward(dy, x, weight, rstd, dx, dweight);
        });
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, y: &mut Tensor) {
        let work = work::linear(1, x.rows(), weight, &[x, weight], &[y]);
        self.time(Part::LinearForward, work, |device| device.linear(x, weight, y));
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
        let mut read = vec![dy, x];
        let mut written = vec![&*dweight];
        read.extend(accumulate_dw.then_some(&*dweight));
        if let Some(dx) = &dx {
            read.push(weight);
            read.extend(accumulate_dx.then_some(&**dx));
            written.push(dx);
        }
        let work = work::linear(1 + usize::from(dx.is_some()), x.rows(), weight, &read, &written);
        self.time(Part::LinearBackward, work, |device| {
            device.linear_backward(dy, x, weight, dx, accumulate_dx, dweight, accumulate_dw);
        });
    }

    fn bias(&self, bias: &Tensor, y: &mut Tensor) {
        let work = each(1, y, &[bias, y], &[y]);
        self.time(Part::BiasForward, work, |device| device.bias(bias, y));
    }

    fn bias_backward(&self, dy: &Tensor, dbias: &mut Tensor) {
        let work = each(1, dy, &[dy, dbias], &[dbias]);
        self.time(Part::BiasBackward, work, |device| device.bias_backward(dy, dbias));
    }

    fn rope(
        &self,
        x: &mut Tensor,
        head_dim: usize,
        sequences: &[u32],
        table: &RopeTable,
        rotation: Rotation,
    ) {
        let work = work::rope(x, head_dim, sequences);
        self.time(Part::Rope, work, |device| device.rope(x, head_dim, sequences, table, rotation));
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
        let work = work::attention(2, shape, sequences, &[q, k, v], &[out, lse]);
        self.time(Part::AttentionForward, work, |device| {
            device.attention(shape, sequences, q, k, v, out, lse);
        });
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
        let work = work::attention(5, shape, sequences, &[dout, q, k, v, out, lse], &[dq, dk, dv]);
        self.time(Part::AttentionBackward, work, |device| {
            device.attention_backward(shape, sequences, dout, q, k, v, out, lse, dq, dk, dv);
        });
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor, out: &mut Tensor) {
        let work = each(5, gate, &[gate, up], &[out]);
        self.time(Part::SwigluForward, work, |device| device.swiglu(gate, up, out));
    }

    fn swiglu_backward(
        &self,
        dout: &Tensor,
        gate: &Tensor,
        up: &Tensor,
        dgate: &mut Tensor,
        dup: &mut Tensor,
    ) {
        let work = each(11, gate, &[dout, gate, up], &[dgate, dup]);
        self.time(Part::SwigluBackward, work, |device| device.swiglu_backward(dout, gate, up, dgate, dup));
    }

    fn add(&self, x: &mut Tensor, y: &Tensor) {
        let work = each(1, x, &[x, y], &[x]);
        self.time(Part::Residual, work, |device| device.add(x, y));
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        head: &Tensor,
        targets: &[i32],
        gradients: Option<(&mut Tensor, &mut Tensor, f32)>,
    ) -> CrossEntropy {
        let rows = targets.iter().filter(|&&target| target >= 0).count();
        let work = match &gradients {
            Some((dx, dhead, _)) => work::linear(3, rows, head, &[x, head, dhead], &[dx, dhead]),
            None => work::linear(1, rows, head, &[x, head], &[]),
        };
        self.time(Part::CrossEntropy, work, |device| device.cross_entropy(x, head, targets, gradients))
    }

    fn logits(&self, x: &Tensor, head: &Tensor, out: &mut Tensor) {
        // For inspection; no part of a step.
        self.device.logits(x, head, out);
    }

    fn convert(&self, src: &Tensor, dst: &mut Tensor) {
        let work = each(0, src, &[src], &[dst]);
        self.time(Part::Convert, work, |device| device.convert(src, dst));
    }

    fn accumulate(&self, dst: &mut Tensor, src: &Tensor) {
        let work = each(1, dst, &[dst, src], &[dst]);
        self.time(Part::Accumulate, work, |device| device.accumulate(dst, src));
    }

    fn sum_of_squares(&self, x: &Tensor) -> f64 {
        self.time(Part::GradientNorm, each(2, x, &[x], &[]), |device| device.sum_of_squares(x))
    }

    fn adamw(&self, step: AdamW, weight: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor) {
        let work = each(15, weight, &[weight, grad, m, v], &[weight, m, v]);
        self.time(Part::Adamw, work, |device| device.adamw(step, weight, grad, m, v));
    }
}

#[cfg(test)]
mod tests;
