//! Whole numbers on a card, with what must be known of them before a kernel may use them as places.

use fp8flow_cuda::{Arg, Memory, Result};

/// Whole numbers of 32 bits on a card, which stay there as long as nobody writes over them.
#[derive(Clone, Copy, Debug)]
pub struct Indices<'a> {
    memory: &'a Memory,
    offset: usize,
    facts: Facts,
}

/// What is known of numbers without looking at them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    len: usize,
    bound: usize,
    ascending: bool,
}

impl Facts {
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

impl<'a> Indices<'a> {
    /// Bytes of `len` numbers.
    pub const fn bytes(len: usize) -> usize {
        len * size_of::<u32>()
    }

    /// Copies `numbers` to `memory`, from byte `offset` on, a multiple of 4.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn upload(memory: &'a Memory, offset: usize, numbers: &[u32]) -> Result<Self> {
        assert!(offset.is_multiple_of(size_of::<u32>()), "numbers at byte {offset}");
        memory.write(offset, bytemuck::cast_slice(numbers))?;
        let bound = numbers.iter().max().map_or(0, |most| *most as usize + 1);
        let facts = Facts { len: numbers.len(), bound, ascending: numbers.is_sorted() };
        Ok(Self { memory, offset, facts })
    }

    /// Those that were copied to the start of `memory`, and of which these facts were kept.
    pub(super) const fn there(memory: &'a Memory, facts: Facts) -> Self {
        Self { memory, offset: 0, facts }
    }

    pub(super) const fn facts(&self) -> Facts {
        self.facts
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.facts.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.facts.len == 0
    }

    /// One more than the largest.
    pub fn bound(&self) -> usize {
        self.facts.bound
    }

    /// Whether none is smaller than the one before it.
    pub fn is_ascending(&self) -> bool {
        self.facts.ascending
    }

    pub(super) fn address(&self) -> Arg {
        self.memory.at(self.offset)
    }
}
