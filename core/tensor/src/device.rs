//! The one seam to hardware: every operation of the model is asked of a [`Device`].

use fp8flow_cuda::Card;
use fp8flow_kernels::{Cpu, math};

use crate::{DType, Tensor};

/// Shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually `head_dim^-1/2`.
    pub scale: f32,
}

/// What a model asks of a device in one micro-batch, as far as it decides what the device works in.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Type of the activations.
    pub dtype: DType,
    /// Tokens of a micro-batch, each with a target.
    pub tokens: usize,
    /// Elements of the residual stream.
    pub hidden: usize,
    /// Rows of the output head.
    pub vocabulary: usize,
    /// The attention.
    pub attention: AttentionShape,
    /// Outputs and inputs of the linear layers that the device multiplies itself.
    pub linears: Vec<[usize; 2]>,
}

/// Which way [`Device::rope`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// As in the forward pass.
    Forward,
    /// Back: the gradient of [`Rotation::Forward`].
    Backward,
}

/// Cosines and sines by position: `[positions, head_dim / 2]` each, f32.
#[derive(Debug)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl RopeTable {
    /// Bytes of the table for `positions` positions and heads of `head_dim` elements.
    pub fn bytes(positions: usize, head_dim: usize) -> usize {
        2 * DType::F32.size() * positions * head_dim.div_ceil(2)
    }

    /// The same in the memory of a card; itself where there is none.
    pub fn copy_to(self, card: Option<&Card>) -> fp8flow_cuda::Result<Self> {
        let Some(card) = card else { return Ok(self) };
        Ok(Self { cos: self.cos.copy_to(card)?, sin: self.sin.copy_to(card)? })
    }

    /// The table for `positions` positions: `cos(p · inv_freq) · factor` and the sine alike, the angle rounded to f32
    /// first, as transformers computes it.
    pub fn new(inv_freq: &[f32], positions: usize, factor: f32) -> Self {
        let half = inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for position in 0..positions {
            for frequency in inv_freq {
                let (s, c) = math::sin_cos_f64(f64::from(position as f32 * frequency));
                cos.push(c as f32 * factor);
                sin.push(s as f32 * factor);
            }
        }
        Self { cos: Tensor::from_f32(cos, positions, half), sin: Tensor::from_f32(sin, positions, half) }
    }
}

/// Result of a [`Device::cross_entropy`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// Sum of `−ln p(target)` over the targets, added in token order in f64.
    pub loss_sum: f64,
    /// Targets.
    pub targets: usize,
    /// For each target, in token order, whether the logits' argmax is the target (lowest index wins a tie);
    /// empty in training.
    pub correct: Vec<bool>,
    /// For each target, the logits' argmax; empty in training.
    pub predicted: Vec<u32>,
}

/// Constants of one AdamW step, bias corrections and clipping folded in by the caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// `1 − beta1^t`.
    pub bias_correction1: f32,
    /// `1 − beta2^t`.
    pub bias_correction2: f32,
    /// Factor on the gradient (clipping).
    pub grad_scale: f32,
}

/// The operations of a decoder. `T` is the number of tokens of the micro-batch: a flat run of sequences without
/// padding; `sequences` holds the offsets of their starts and, last, `T`.
///
/// Activations are bf16 or f32, all alike; weights, statistics and gradients of weights are f32 unless said
/// otherwise. Arithmetic is f32, rounded once when a bf16 result is stored.
pub trait Device: Send + Sync {
    /// What it is, for reports.
    fn name(&self) -> String;

    /// The CPU that host-side work (data, checkpoints) and CPU kernels run on.
    fn cpu(&self) -> Cpu<'_>;

    /// The card whose memory its tensors lie in; none for the CPU's.
    fn card(&self) -> Option<&Card> {
        None
    }

    /// Waits until everything that was asked is done. Fails if any of it did: what has been written since the last time
    /// is worth nothing then.
    fn settle(&self) -> fp8flow_cuda::Result<()> {
        Ok(())
    }

    /// Bytes that it holds beside tensors to train on micro-batches of `work`.
    fn workspace(&self, work: &Workload) -> usize;

    /// Every element in use is `value`.
    fn fill(&self, x: &mut Tensor, value: f32);

    /// `out[t] = table[ids[t]]`; `table: [V, H]` f32.
    fn embedding(&self, ids: &[u32], table: &Tensor, out: &mut Tensor);

    /// `dtable[ids[t]] += dout[t]`, in ascending `t`.
    fn embedding_backward(&self, ids: &[u32], dout: &Tensor, dtable: &mut Tensor);

    /// `y[t] = x[t] · rstd[t] · weight`, `rstd[t] = (mean(x[t]²) + eps)^-1/2`; `rstd: [1, T]` f32.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, y: &mut Tensor, rstd: &mut Tensor);

    /// `dx += ∂/∂x` (the residual's gradient is already there), `dweight += ∂/∂weight`.
    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        rstd: &Tensor,
        dx: &mut Tensor,
        dweight: &mut Tensor,
    );

    /// `y = x·Wᵀ` in high precision; `W: [N, K]` in the type of `x`.
    fn linear(&self, x: &Tensor, weight: &Tensor, y: &mut Tensor);

    /// `dx (+)= dy·W` and `dW (+)= dyᵀ·x`; `dW` f32.
    fn linear_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        dx: Option<&mut Tensor>,
        accumulate_dx: bool,
        dweight: &mut Tensor,
        accumulate_dw: bool,
    );

    /// `y[t] += bias`, the bias rounded to the type of `y` first.
    fn bias(&self, bias: &Tensor, y: &mut Tensor);

    /// `dbias += Σ_t dy[t]`.
    fn bias_backward(&self, dy: &Tensor, dbias: &mut Tensor);

    /// Rotates each head of `x: [T, heads · head_dim]` in place by its token's position in its sequence; element `i`
    /// pairs with `i + head_dim / 2` (the Hugging Face layout).
    fn rope(&self, x: &mut Tensor, head_dim: usize, sequences: &[u32], table: &RopeTable, rotation: Rotation);

    /// Causal grouped-query attention within each sequence. `q, out: [T, heads · head_dim]`, `k, v: [T, kv_heads ·
    /// head_dim]`, `lse: [heads, T]` f32 (logarithm of the softmax's denominator). No `T × T` matrix is stored.
    fn attention(
        &self,
        shape: AttentionShape,
        sequences: &[u32],
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &mut Tensor,
        lse: &mut Tensor,
    );

    /// Gradients of [`Device::attention`]; `dq`, `dk`, `dv` are overwritten.
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
    );

    /// `out = silu(gate) · up`, element by element.
    fn swiglu(&self, gate: &Tensor, up: &Tensor, out: &mut Tensor);

    /// Gradients of [`Device::swiglu`].
    fn swiglu_backward(
        &self,
        dout: &Tensor,
        gate: &Tensor,
        up: &Tensor,
        dgate: &mut Tensor,
        dup: &mut Tensor,
    );

    /// `x += y`, element by element: the residual connection. Its gradient is the identity, twice.
    fn add(&self, x: &mut Tensor, y: &Tensor);

    /// Mean next-token loss through the output head, in chunks of tokens, so that the logits of a batch never stand
    /// in memory. `x: [T, H]`; `head: [V, H]` in the type of `x`; `targets[t]` is the token to predict or −1 for
    /// none. With `gradients = (dx, dhead, factor)`: `dx` is overwritten with, and `dhead` (f32) gains, the gradient
    /// of `factor · loss_sum`.
    fn cross_entropy(
        &self,
        x: &Tensor,
        head: &Tensor,
        targets: &[i32],
        gradients: Option<(&mut Tensor, &mut Tensor, f32)>,
    ) -> CrossEntropy;

    /// Logits `[T, V]` in f32, for inspection and tests.
    fn logits(&self, x: &Tensor, head: &Tensor, out: &mut Tensor);

    /// `dst = src`, converted to the type of `dst`.
    fn convert(&self, src: &Tensor, dst: &mut Tensor);

    /// `dst += src`, both f32: combining gradients of micro-batches.
    fn accumulate(&self, dst: &mut Tensor, src: &Tensor);

    /// Σ x², with a fixed order of addition; NaN or infinite if an element is.
    fn sum_of_squares(&self, x: &Tensor) -> f64;

    /// The same of many tensors: a device that has to be waited for is waited for once.
    fn sums_of_squares(&self, tensors: &[&Tensor]) -> Vec<f64> {
        tensors.iter().map(|tensor| self.sum_of_squares(tensor)).collect()
    }

    /// One fused AdamW step over a parameter and its moments, all f32 (decoupled decay, as `torch.optim.AdamW`).
    fn adamw(&self, step: AdamW, weight: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor);
}
