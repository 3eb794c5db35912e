//! Next-token loss through the output head, a chunk of tokens at a time.
//!
//! The chunks are larger than the CPU's, since a card needs more rows to be busy: sums over tokens are made in another
//! order. Losses of tokens do not depend on the chunk.

use fp8flow_cuda::gemm::Gemm;
use fp8flow_cuda::{Architecture, Card, Result};

use super::linear;
use super::room::Room;
use super::{Indices, cross_entropy, elementwise, gather};
use crate::{CrossEntropy, DType, Tensor};

/// Logits that may stand in memory at once; part of the numerics revision. Each chunk reads and writes the gradient of the
/// whole head, so that a card that has the memory takes few.
const fn chunk_logits(architecture: Architecture) -> usize {
    match architecture {
        Architecture::Ada => 1 << 27,
        Architecture::Hopper => 1 << 29,
    }
}

/// Rows of logits start at multiples of this many, so that they are read 16 bytes at a time and cuBLASLt takes them.
const ROW: usize = 8;

/// Where gradients go: `dx`, `dhead` and the factor on the loss.
pub(super) type Gradients<'a> = Option<(&'a mut Tensor, &'a mut Tensor, f32)>;

/// Buffers of a chunk.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    numbers: Room,
    targets: Room,
    logits: Room,
    dlogits: Room,
    gathered: Room,
    dgathered: Room,
    lse: Room,
    losses: Room,
    best: Room,
}

/// Tokens of the largest chunk of `tokens`.
fn chunk(card: &Card, tokens: usize, vocabulary: usize) -> usize {
    let logits = chunk_logits(card.properties().architecture);
    tokens.min((logits / vocabulary.max(1) / 128 * 128).clamp(128, 8192))
}

/// Bytes of the buffers for micro-batches of `tokens` tokens, each with a target.
pub(super) fn bytes(card: &Card, tokens: usize, vocabulary: usize, width: usize, dtype: DType) -> usize {
    let (chunk, ld) = (chunk(card, tokens, vocabulary), vocabulary.next_multiple_of(ROW));
    chunk * (ld * (DType::F32.size() + dtype.size()) + 2 * width * dtype.size() + 4 * size_of::<u32>())
        + tokens * 2 * size_of::<u32>()
}

pub(super) fn run(
    card: &Card,
    gemm: &Gemm,
    buffers: &mut Buffers,
    x: &Tensor,
    head: &Tensor,
    targets: &[i32],
    mut gradients: Gradients<'_>,
) -> Result<CrossEntropy> {
    let (vocabulary, width, dtype) = (head.rows(), head.cols(), x.dtype());
    let ld = vocabulary.next_multiple_of(ROW);
    let rows: Vec<u32> = (0..targets.len() as u32).filter(|&t| targets[t as usize] >= 0).collect();
    let mut result = CrossEntropy { targets: rows.len(), ..CrossEntropy::default() };
    if let Some((dx, ..)) = &mut gradients {
        elementwise::clear(dx)?;
    }
    if rows.is_empty() {
        return Ok(result);
    }
    let wanted: Vec<u32> = rows.iter().map(|&t| targets[t as usize] as u32).collect();
    let losses = buffers.losses.tensor(card, DType::F32, 1, rows.len())?;
    let best = buffers.best.bytes(card, Indices::bytes(rows.len()))?.clone();
    for (first, rows) in rows.chunks(chunk(card, rows.len(), vocabulary)).scan(0, |next, rows| {
        let first = *next;
        *next += rows.len();
        Some((first, rows))
    }) {
        let n = rows.len();
        let numbers = buffers.numbers.indices(card, rows)?;
        let targets = buffers.targets.indices(card, &wanted[first..][..n])?;
        let mut gathered = buffers.gathered.tensor(card, dtype, n, width)?;
        gather::gather(card, x, numbers, &mut gathered)?;
        let mut logits = buffers.logits.tensor(card, DType::F32, n, ld)?;
        linear::logits(gemm, &gathered, head, &mut logits)?;
        let mut lse = buffers.lse.tensor(card, DType::F32, 1, n)?;
        let mut loss = losses.columns(first, n);
        let best = (&*best, Indices::bytes(first));
        cross_entropy::statistics(card, &logits, vocabulary, targets, &mut lse, &mut loss, best)?;
        let Some((dx, dhead, factor)) = &mut gradients else { continue };
        let mut dlogits = buffers.dlogits.tensor(card, dtype, n, ld)?;
        cross_entropy::gradient(card, &logits, vocabulary, targets, &lse, *factor, &mut dlogits)?;
        let mut dgathered = buffers.dgathered.tensor(card, dtype, n, width)?;
        linear::head_backward(gemm, &dlogits, &gathered, head, &mut dgathered, dhead)?;
        gather::scatter(card, &dgathered, numbers, dx)?;
    }
    for loss in losses.here()?.f32() {
        result.loss_sum += f64::from(*loss);
    }
    if gradients.is_none() {
        let mut found = vec![0_u32; rows.len()];
        best.read(0, bytemuck::cast_slice_mut(&mut found))?;
        result.correct = found.iter().zip(&wanted).map(|(found, wanted)| found == wanted).collect();
        result.predicted = found;
    }
    Ok(result)
}
