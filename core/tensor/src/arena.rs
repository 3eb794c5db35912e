//! Memory planned before it is taken: the same code measures and allocates.

use fp8flow_cuda::{Card, Error};

use crate::{Bytes, DType, Device, Tensor};

/// Hands out tensors and byte regions and adds up their sizes.
///
/// [`Arena::measure`] hands out empty ones, so that a plan knows the bytes of a run without taking them.
#[derive(Debug)]
pub struct Arena {
    bytes: usize,
    from: Source,
    /// Why nothing more can be had.
    failure: Option<Error>,
}

#[derive(Debug)]
enum Source {
    /// Only counts what would be taken, on this card or of the CPU.
    Nothing(Option<Card>),
    Cpu,
    Card(Card),
}

impl Arena {
    /// An arena that takes the memory of `device`.
    pub fn of(device: &dyn Device) -> Self {
        Self::from(device.card().map_or(Source::Cpu, |card| Source::Card(card.clone())))
    }

    /// An arena that takes the CPU's memory.
    pub fn allocate() -> Self {
        Self::from(Source::Cpu)
    }

    /// An arena that only counts what would be taken of the CPU's.
    pub fn measure() -> Self {
        Self::from(Source::Nothing(None))
    }

    /// An arena that only counts what would be taken of that of `device`.
    pub fn measure_of(device: &dyn Device) -> Self {
        Self::from(Source::Nothing(device.card().cloned()))
    }

    fn from(from: Source) -> Self {
        Self { bytes: 0, from, failure: None }
    }

    /// Zeros with room for `rows` rows.
    pub fn tensor(&mut self, dtype: DType, rows: usize, cols: usize) -> Tensor {
        self.bytes += rows * cols * dtype.size();
        let nothing = || Tensor::zeros(dtype, 0, cols);
        match &self.from {
            Source::Nothing(_) => nothing(),
            Source::Cpu => Tensor::zeros(dtype, rows, cols),
            Source::Card(card) => {
                let taken = Tensor::zeros_on(card, dtype, rows, cols);
                self.or_failed(taken).unwrap_or_else(nothing)
            }
        }
    }

    /// Whether it takes the memory, or only counts.
    pub fn allocates(&self) -> bool {
        !matches!(self.from, Source::Nothing(_))
    }

    /// The card whose memory it takes, or counts.
    pub fn card(&self) -> Option<&Card> {
        match &self.from {
            Source::Card(card) => Some(card),
            Source::Nothing(card) => card.as_ref(),
            Source::Cpu => None,
        }
    }

    /// `len` zero bytes.
    pub fn region(&mut self, len: usize) -> Bytes {
        self.bytes += len;
        match &self.from {
            Source::Nothing(_) => Bytes::default(),
            Source::Cpu => Bytes::zeros(len),
            Source::Card(card) => {
                let taken = Bytes::zeros_on(card, len);
                self.or_failed(taken).unwrap_or_default()
            }
        }
    }

    /// Bytes handed out so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fails if anything could not be had: what was handed out since is empty.
    pub fn check(&mut self) -> Result<(), Error> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn or_failed<T>(&mut self, taken: Result<T, Error>) -> Option<T> {
        taken.map_err(|error| self.failure.get_or_insert(error)).ok()
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
