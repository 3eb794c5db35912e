//! Whole numbers on a card, with what must be known of them before a kernel may use them as places.

use fp8flow_cuda::{Arg, Memory, Result};

/// Whole numbers of 32 bits on a card, which stay there as long as nobody writes over them.
#[derive(Clone, Copy, Debug)]
pub struct Indices<'a> {
    memory: &'a Memory,
    offset: usize,
    len: usize,
    bound: usize,
    ascending: bool,
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
        Ok(Self { memory, offset, len: numbers.len(), bound, ascending: numbers.is_sorted() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the largest.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Whether none is smaller than the one before it.
    pub fn is_ascending(&self) -> bool {
        self.ascending
    }

    pub(super) fn address(&self) -> Arg {
        self.memory.at(self.offset)
    }
}
