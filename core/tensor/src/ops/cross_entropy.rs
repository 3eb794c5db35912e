//! Next-token loss through the output head, a chunk of tokens at a time: logits of a whole batch never stand in
//! memory, and tokens without a target cost nothing.
//!
//! For each chunk: gather the rows with a target, `logits = x·Wᵀ` in f32, `loss = lse − logit[target]`, then
//! `dlogits = (softmax − onehot) · factor` in the activations' type, `dx = dlogits·W`, `dW += dlogitsᵀ·x`. The logits are
//! not read again, so their gradients are written over them.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{
    Cpu, Element, ElementsMut, Epilogue, Matrix, Operand, Store, gemm, math, multiversion,
};

use crate::lanes::lane_sum;
use crate::{CrossEntropy, DType, Tensor};

/// Logits that may stand in memory at once; part of the numerics revision.
const CHUNK_LOGITS: usize = 1 << 22;

/// Tokens of a chunk, a function of the vocabulary alone.
fn chunk_tokens(vocabulary: usize) -> usize {
    (CHUNK_LOGITS / vocabulary.max(1) / 16 * 16).clamp(16, 4096)
}

multiversion! {
    /// Softmax statistics of one row: `(max, Σ exp(x − max))`. A NaN passes by the maximum and spoils the sum.
    fn statistics(logits: &[f32]) -> (f32, f32) {
        let mut tops = [f32::NEG_INFINITY; fp8flow_kernels::LANES];
        for chunk in logits.chunks(fp8flow_kernels::LANES) {
            for (top, x) in tops.iter_mut().zip(chunk) {
                *top = x.max(*top);
            }
        }
        let top = tops.into_iter().fold(f32::NEG_INFINITY, f32::max);
        (top, lane_sum([logits], [], |[x], [], acc| acc + math::exp(x - top)))
    }
}

multiversion! {
    /// Writes `softmax · factor` over a row of logits, from its start.
    fn gradient<A: Element>(logits: &mut [f32], lse: f32, factor: f32) {
        const PIECE: usize = 64;
        let (n, words) = (logits.len(), words::<A>());
        let row: &mut [A] = bytemuck::cast_slice_mut(logits);
        for first in (0..n).step_by(PIECE) {
            // What is written ends no later than what was read.
            let (mut piece, len) = ([0.0_f32; PIECE], PIECE.min(n - first));
            piece[..len].copy_from_slice(bytemuck::cast_slice(&row[first * words..][..len * words]));
            for (out, x) in row[first..][..len].iter_mut().zip(&piece) {
                *out = A::narrow(math::exp(*x - lse) * factor);
            }
        }
    }
}

/// Elements of `A` in the place of a logit.
const fn words<A>() -> usize {
    size_of::<f32>() / size_of::<A>()
}

/// Buffers of a chunk, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Workspace<A> {
    /// Logits, then their gradients.
    logits: Vec<f32>,
    gathered: Vec<A>,
    dgathered: Vec<A>,
}

/// Tokens of the largest chunk of `tokens`.
pub(crate) fn chunk(tokens: usize, vocabulary: usize) -> usize {
    tokens.min(chunk_tokens(vocabulary))
}

/// Bytes of a [`Workspace`] of `dtype`.
pub(crate) fn bytes(tokens: usize, vocabulary: usize, width: usize, dtype: DType) -> usize {
    chunk(tokens, vocabulary) * (vocabulary * size_of::<f32>() + 2 * width * dtype.size())
}

/// Where gradients go: `dx`, `dhead` and the factor on the loss.
pub(crate) type Gradients<'a, A> = Option<(&'a mut [A], &'a mut Tensor, f32)>;

pub(crate) fn run<A: Element>(
    cpu: Cpu<'_>,
    x: &[A],
    head: &Tensor,
    targets: &[i32],
    mut gradients: Gradients<'_, A>,
    space: &mut Workspace<A>,
) -> CrossEntropy {
    let (vocabulary, width) = (head.rows(), head.cols());
    let rows: Vec<usize> = (0..targets.len()).filter(|&t| targets[t] >= 0).collect();
    let mut result = CrossEntropy { targets: rows.len(), ..CrossEntropy::default() };
    if let Some((dx, ..)) = &mut gradients {
        dx.fill(A::default());
    }
    for chunk in rows.chunks(chunk_tokens(vocabulary)) {
        let n = chunk.len();
        space.gathered.clear();
        for &t in chunk {
            space.gathered.extend_from_slice(&x[t * width..][..width]);
        }
        space.logits.resize(n * vocabulary, 0.0);
        let gathered = Matrix::new(A::elements(&space.gathered), n, width);
        let (one, rows_of_head) = (Epilogue::One, Operand::rows(head.matrix()));
        let logits = ElementsMut::F32(&mut space.logits);
        gemm(&cpu, &Operand::rows(gathered), one, &rows_of_head, one, Store::Overwrite, logits);

        let mut losses = vec![(0.0_f32, 0.0_f32, 0_u32); n];
        let rows = space.logits.chunks_exact(vocabulary).zip(chunk).zip(&mut losses);
        for_each(cpu.pool, rows, |((row, &t), loss)| {
            let (top, sum) = statistics(cpu.isa, row);
            let lse = top + math::ln(sum);
            let best = row.iter().position(|x| *x == top).unwrap_or(0);
            *loss = (lse, lse - row[targets[t] as usize], best as u32);
        });
        for (&t, &(_, loss, best)) in chunk.iter().zip(&losses) {
            result.loss_sum += f64::from(loss);
            if gradients.is_none() {
                result.correct.push(best as i32 == targets[t]);
                result.predicted.push(best);
            }
        }
        let Some((dx, dhead, factor)) = &mut gradients else { continue };
        let factor = *factor;
        let rows = space.logits.chunks_exact_mut(vocabulary).zip(chunk).zip(&losses);
        for_each(cpu.pool, rows, |((row, &t), &(lse, ..))| {
            let target = targets[t] as usize;
            let at_target = A::narrow((math::exp(row[target] - lse) - 1.0) * factor);
            gradient::<A>(cpu.isa, row, lse, factor);
            bytemuck::cast_slice_mut(row)[target] = at_target;
        });
        let elements = A::elements(bytemuck::cast_slice(&space.logits));
        let (row_stride, depth_stride) = (words::<A>() * vocabulary, 1);
        let dlogits = Operand { elements, rows: n, depth: vocabulary, row_stride, depth_stride, grid: None };
        space.dgathered.resize(n * width, A::default());
        let columns_of_head = Operand::transposed(head.matrix());
        let dgathered = A::elements_mut(&mut space.dgathered);
        gemm(&cpu, &dlogits, one, &columns_of_head, one, Store::Overwrite, dgathered);
        for (row, &t) in space.dgathered.chunks_exact(width).zip(chunk) {
            dx[t * width..][..width].copy_from_slice(row);
        }
        let dlogits = Operand {
            rows: vocabulary,
            depth: n,
            row_stride: depth_stride,
            depth_stride: row_stride,
            ..dlogits
        };
        let gathered = Operand::transposed(gathered);
        gemm(&cpu, &dlogits, one, &gathered, one, Store::Accumulate, dhead.elements_mut());
    }
    result
}
