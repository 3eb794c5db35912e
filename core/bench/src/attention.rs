//! Causal attention of sequences that lie one behind the other, forward and backward, in bf16, on any device.
//!
//! | case | operations a query head and pair of tokens |
//! | --- | --- |
//! | `attention_forward` | `4·head_dim`: scores and weighted values |
//! | `attention_backward` | `10·head_dim`: the scores again, and four products |
//!
//! A token meets itself and those before it. Softmax is not counted.

use fp8flow_kernels::bf16;
use fp8flow_tensor::{AttentionShape, CardError, DType, Device, Tensor};

use crate::card::line::{Extent, Heads};
use crate::limits::FmaPeak;
use crate::line::Line;
use crate::numbers::normal_bf16;
use crate::{Bench, BenchError, room};

/// What the CPU measures where nobody asks for anything else: a layer of the model of `bench train`.
pub const USUAL: Heads = Heads { batch: 4, sequence: 256, heads: 8, kv_heads: 4, head_dim: 64 };

/// Measures both on the CPU, beside the FMA peak.
pub fn attention(bench: &Bench<'_>, heads: Heads, show: &mut dyn FnMut(Line)) -> Result<(), BenchError> {
    let device = bench.engine.device();
    let mut peak = FmaPeak::new(bench.cpu());
    bench.limit(&mut peak, show);
    room::check(heads.bytes() as u64)?;
    let mut layer = Layer::new(&*device, heads)?;
    for (what, products, run) in PASSES {
        let flops = heads.flops(products);
        let call = || {
            run(&mut layer, &*device);
            Ok(())
        };
        show(bench.case(what, Extent::Heads(heads), None, flops, &mut peak, call)?);
    }
    Ok(())
}

/// Its name, its products of rows a head and pair of tokens, and the work.
pub(crate) type Pass = (&'static str, usize, fn(&mut Layer, &dyn Device));

pub(crate) const PASSES: [Pass; 2] =
    [("attention_forward", 2, Layer::forward), ("attention_backward", 5, Layer::backward)];

impl Heads {
    /// Whether heads can share keys and values so.
    pub fn is_sound(self) -> bool {
        self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads)
    }

    fn tokens(self) -> usize {
        self.batch * self.sequence
    }

    /// Operations of so many products of rows a head and pair of tokens.
    pub(crate) fn flops(self, products: usize) -> f64 {
        let pairs = self.batch * self.sequence * (self.sequence + 1) / 2;
        2.0 * (products * self.head_dim * self.heads) as f64 * pairs as f64
    }

    /// Bytes of all that it reads and writes, and of what a device works in.
    pub(crate) fn bytes(self) -> usize {
        let row = 2 * self.head_dim * (4 * self.heads + 4 * self.kv_heads) + 2 * 4 * self.heads + 24;
        row * self.tokens()
    }
}

/// The tensors of a layer.
pub(crate) struct Layer {
    shape: AttentionShape,
    sequences: Vec<u32>,
    /// Queries, keys, values, and the gradient of the output.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    out: Tensor,
    lse: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
}

impl Layer {
    /// Normal numbers on `device`, and the output of a first call.
    pub(crate) fn new(device: &dyn Device, of: Heads) -> Result<Self, CardError> {
        let Heads { batch, sequence, heads, kv_heads, head_dim } = of;
        let tokens = of.tokens();
        let there = |tensor: Tensor| match device.card() {
            Some(card) => tensor.copy_to(card),
            None => Ok(tensor),
        };
        let normal = |heads: usize, stream| {
            let mut tensor = Tensor::zeros(DType::Bf16, tokens, heads * head_dim);
            let numbers: Vec<bf16> = normal_bf16(tokens * heads * head_dim, stream);
            tensor.bf16_mut().copy_from_slice(&numbers);
            there(tensor)
        };
        let zeros = |heads: usize| there(Tensor::zeros(DType::Bf16, tokens, heads * head_dim));
        let mut layer = Self {
            shape: AttentionShape { heads, kv_heads, head_dim, scale: (head_dim as f32).sqrt().recip() },
            sequences: (0..=batch).map(|end| (end * sequence) as u32).collect(),
            q: normal(heads, 0)?,
            k: normal(kv_heads, 1)?,
            v: normal(kv_heads, 2)?,
            dout: normal(heads, 3)?,
            out: zeros(heads)?,
            lse: there(Tensor::zeros(DType::F32, tokens, heads))?,
            dq: zeros(heads)?,
            dk: zeros(kv_heads)?,
            dv: zeros(kv_heads)?,
        };
        layer.forward(device);
        device.settle()?;
        Ok(layer)
    }

    fn forward(&mut self, device: &dyn Device) {
        let Self { shape, sequences, q, k, v, out, lse, .. } = self;
        device.attention(*shape, sequences, q, k, v, out, lse);
    }

    fn backward(&mut self, device: &dyn Device) {
        let Self { shape, sequences, q, k, v, dout, out, lse, dq, dk, dv } = self;
        device.attention_backward(*shape, sequences, dout, q, k, v, out, lse, dq, dk, dv);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_counted_by_hand() {
        // Two sequences of three tokens: six pairs each; four heads of 16; two products of 2·16 operations.
        let heads = Heads { batch: 2, sequence: 3, heads: 4, kv_heads: 2, head_dim: 16 };
        assert_eq!(heads.flops(2).to_bits(), f64::from(2 * 6 * 4 * 64).to_bits());
        assert!(heads.is_sound() && !Heads { kv_heads: 3, ..heads }.is_sound());
    }
}
