//! Memory planned before it is taken: the same code measures and allocates.

use crate::{Bytes, DType, Tensor};

/// Hands out tensors and byte regions and adds up their sizes.
///
/// [`Arena::measure`] hands out empty ones, so that a plan knows the bytes of a run without taking them.
#[derive(Debug)]
pub struct Arena {
    bytes: usize,
    take: bool,
}

impl Arena {
    /// An arena that takes the memory.
    pub fn allocate() -> Self {
        Self { bytes: 0, take: true }
    }

    /// An arena that only counts.
    pub fn measure() -> Self {
        Self { bytes: 0, take: false }
    }

    /// Zeros with room for `rows` rows.
    pub fn tensor(&mut self, dtype: DType, rows: usize, cols: usize) -> Tensor {
        self.bytes += rows * cols * dtype.size();
        Tensor::zeros(dtype, if self.take { rows } else { 0 }, cols)
    }

    /// Whether it takes the memory, or only counts.
    pub fn allocates(&self) -> bool {
        self.take
    }

    /// `len` zero bytes.
    pub fn region(&mut self, len: usize) -> Bytes {
        self.bytes += len;
        Bytes::zeros(if self.take { len } else { 0 })
    }

    /// Bytes handed out so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_counts_what_allocating_takes_and_takes_nothing() {
        let plan = |arena: &mut Arena| (arena.tensor(DType::Bf16, 7, 5), arena.region(100));
        let (mut measure, mut allocate) = (Arena::measure(), Arena::allocate());
        let (tensor, region) = plan(&mut measure);
        assert_eq!((tensor.bytes(), region.get().len()), (0, 0));
        let (tensor, region) = plan(&mut allocate);
        assert_eq!((tensor.bytes(), region.get().len()), (70, 100));
        assert_eq!((measure.bytes(), allocate.bytes()), (170, 170));
    }
}
