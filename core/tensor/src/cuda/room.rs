//! What a card works in beside tensors: kept from call to call, and grown where a call needs more.

use std::sync::Arc;

use fp8flow_cuda::{Card, Memory, Result};

use super::Indices;
use crate::{DType, Tensor};

/// Memory for one use.
#[derive(Debug, Default)]
pub(super) struct Room(Option<Arc<Memory>>);

impl Room {
    /// At least `bytes` bytes. What it held is lost if it must grow.
    pub(super) fn bytes(&mut self, card: &Card, bytes: usize) -> Result<&Arc<Memory>> {
        let old = self.0.take().filter(|memory| memory.bytes() >= bytes);
        // One that is too small is gone by now: both together may be more than there is.
        let memory = old.map_or_else(|| card.take(bytes).map(Arc::new), Ok)?;
        Ok(self.0.insert(memory))
    }

    /// A tensor of any contents.
    pub(super) fn tensor(&mut self, card: &Card, dtype: DType, rows: usize, cols: usize) -> Result<Tensor> {
        let memory = self.bytes(card, rows * cols * dtype.size())?;
        Ok(Tensor::on_card(memory.clone(), 0, dtype, rows, cols))
    }

    /// `numbers`, on the card.
    pub(super) fn indices(&mut self, card: &Card, numbers: &[u32]) -> Result<Indices<'_>> {
        Indices::upload(self.bytes(card, Indices::bytes(numbers.len()))?, 0, numbers)
    }
}
