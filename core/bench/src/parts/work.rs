//! Operations and least traffic of a call.
//!
//! With `T` tokens, rows `H` wide, a vocabulary of `V`, layers of `K` inputs and `N` outputs. *Operations* are those that the
//! result takes, given the operands: where matrices are multiplied, the products alone, two a multiply-add; elsewhere every
//! addition, multiplication, division, root and exponential as one. *Traffic* is every operand read once and every result
//! written once, in bytes of its own type; what gains is read and written. What a kernel writes for itself does not count.
//!
//! | part | operations | traffic |
//! | --- | --- | --- |
//! | linear, FP8, forward | `2·T·N·K` | `x` by the first layer of its group, its codes by the others; codes kept for backward; `W` with the codes it is kept as where the optimizer has stepped, its codes otherwise; `y` |
//! | linear, FP8, backward | `4·T·N·K` | `dy`; the codes of `W` and `x` (`x` itself where the recipe keeps that); `dx`, `dW` |
//! | linear, forward | `2·T·N·K` | `x`, `W`, `y` |
//! | linear, backward | `4·T·N·K` | `dy`, `x`, `W`, `dx`, `dW` |
//! | attention, forward | `4·D` a head and pair of tokens | `q`, `k`, `v`, `out`, `lse` |
//! | attention, backward | `10·D`, the scores again among them | `dout`, `q`, `k`, `v`, `out`, `lse`, `dq`, `dk`, `dv` |
//! | cross entropy | `6·T·V·H` over tokens with a target, `2·T·V·H` without gradients | `x`, head, `dx`, `dhead` |
//! | norm, forward | 4 an element | `x`, `weight`, `y`, `rstd` |
//! | norm, backward | 10 an element | `dy`, `x`, `weight`, `rstd`, `dx`, `dweight` |
//! | RoPE | 3 an element | `x`, the table's rows |
//! | SwiGLU, forward | 5 an element | `gate`, `up`, `out` |
//! | SwiGLU, backward | 11 an element | `dout`, `gate`, `up`, `dgate`, `dup` |
//! | residual, bias, sums of gradients | 1 an element | both operands, what gains again |
//! | embedding, forward | none | a row a token, `out` |
//! | embedding, backward | 1 an element | `dout`, a row a token |
//! | convert | none | both |
//! | gradient norm | 2 an element | the gradient |
//! | AdamW | 15 a parameter | weight and moments read and written, gradient read: 28 bytes |
//!
//! `D` is the width of a head. Pairs are those of a token with itself and the tokens before it.

use fp8flow_sdk::{Backward, Forward, TensorMut, TensorRef};
use fp8flow_tensor::{AttentionShape, Tensor};

/// Operations and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) flops: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// Bytes of the rows in use.
fn size(x: &Tensor) -> usize {
    elements(x) * x.dtype().size()
}

fn elements(x: &Tensor) -> usize {
    x.rows() * x.cols()
}

/// So many operations on each element of `x`.
pub(crate) fn each(flops: usize, x: &Tensor, read: &[&Tensor], written: &[&Tensor]) -> Work {
    work(flops * elements(x), read, written)
}

fn work(flops: usize, read: &[&Tensor], written: &[&Tensor]) -> Work {
    let bytes = read.iter().chain(written).map(|x| size(x)).sum::<usize>();
    Work { flops: flops as u64, bytes: bytes as u64 }
}

/// `products` of `[rows, k]` by `[k, n]`, `weight: [n, k]`.
pub(crate) fn linear(
    products: usize,
    rows: usize,
    weight: &Tensor,
    read: &[&Tensor],
    written: &[&Tensor],
) -> Work {
    work(2 * products * rows * elements(weight), read, written)
}

/// `products` of a row of queries by one of keys or values, for each head and pair of tokens.
pub(crate) fn attention(
    products: usize,
    shape: AttentionShape,
    sequences: &[u32],
    read: &[&Tensor],
    written: &[&Tensor],
) -> Work {
    let pairs = |len: usize| len * (len + 1) / 2;
    let pairs: usize = sequences.windows(2).map(|ends| pairs((ends[1] - ends[0]) as usize)).sum();
    work(2 * products * shape.head_dim * shape.heads * pairs, read, written)
}

/// Heads turned in place, by angles that sequences have in common.
pub(crate) fn rope(x: &Tensor, head_dim: usize, sequences: &[u32]) -> Work {
    let positions = sequences.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
    let mut work = each(3, x, &[x], &[x]);
    work.bytes += (4 * positions as usize * head_dim) as u64;
    work
}

/// A row of the table for each token.
pub(crate) fn embedding(flops: usize, activations: &Tensor, table_passes: usize) -> Work {
    let mut work = each(flops, activations, &[activations], &[]);
    work.bytes += (4 * table_passes * elements(activations)) as u64;
    work
}

/// A layer's forward through a backend; `own` are the bytes it keeps `W` as, where the optimizer has stepped since the
/// last.
pub(crate) fn fp8_forward(call: &Forward<'_>, own: Option<usize>) -> Work {
    let [rows, k] = shape(&call.x.tensor);
    let n = shape(&call.weight)[0];
    let cast_before = call.group.ready || call.x.quantized.is_some();
    let x = if cast_before { rows * k } else { bytes(&call.x.tensor) };
    let kept = call.saved.len() + if call.group.ready { 0 } else { call.group.saved.len() };
    let weight = own.map_or(n * k, |own| bytes(&call.weight) + own);
    let y = rows * n * call.y.dtype().size();
    Work { flops: (2 * rows * n * k) as u64, bytes: (x + kept + weight + y) as u64 }
}

/// A layer's backward through a backend.
pub(crate) fn fp8_backward(call: &Backward<'_>) -> Work {
    let [rows, n] = shape(&call.dy);
    let k = shape(&call.weight)[1];
    let gains = |accumulate| if accumulate { 2 } else { 1 };
    let written = |out: &TensorMut<'_>, accumulate, len: usize| gains(accumulate) * len * out.dtype().size();
    let x = call.x.as_ref().map_or(rows * k, bytes);
    let dx = call.dx.as_ref().map_or(0, |dx| n * k + written(dx, call.accumulate_dx, rows * k));
    let dw = written(&call.dw, call.accumulate_dw, n * k);
    let products = 1 + usize::from(call.dx.is_some());
    Work { flops: (2 * products * rows * n * k) as u64, bytes: (bytes(&call.dy) + x + dx + dw) as u64 }
}

fn shape(x: &TensorRef<'_>) -> [usize; 2] {
    match *x.shape() {
        [rows, cols] => [rows as usize, cols as usize],
        _ => [0; 2],
    }
}

fn bytes(x: &TensorRef<'_>) -> usize {
    let [rows, cols] = shape(x);
    rows * cols * x.dtype().size()
}
