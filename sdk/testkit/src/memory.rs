//! Memory lent to a backend, between guards.

use std::ops::{Deref, DerefMut};

use fp8flow_sdk::region::ALIGN;

use crate::pages::Pages;

const GUARD: u8 = 0xc3;
const GUARD_BYTES: usize = 2 * ALIGN;

/// What stands on both sides of memory on loan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// Bytes that must not change: a write beside the memory is found when the call is over.
    #[default]
    Bytes,
    /// Pages that cannot be touched: an access beside the memory, reading included, ends the process while it happens.
    /// The memory ends where the page behind begins, as far as its alignment allows; bytes fill the gap.
    Pages,
}

/// Aligned bytes with guards on both sides.
#[derive(Debug)]
pub struct Guarded {
    memory: Memory,
    fence: Fence,
    start: usize,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Mapped(Pages),
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(pages) => pages,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(pages) => pages,
        }
    }
}

impl Guarded {
    /// `len` bytes of `fill` between guard bytes, starting at a multiple of 64.
    pub fn new(len: usize, fill: u8) -> Self {
        Self::within(Fence::Bytes, len, fill)
    }

    /// The same within any fence.
    ///
    /// # Panics
    /// If the system has no more memory to map.
    pub fn within(fence: Fence, len: usize, fill: u8) -> Self {
        let (mut memory, start) = match fence {
            Fence::Bytes => {
                let memory = vec![GUARD; len + ALIGN + 2 * GUARD_BYTES];
                let start = GUARD_BYTES + memory[GUARD_BYTES..].as_ptr().align_offset(ALIGN);
                (Memory::Heap(memory), start)
            }
            Fence::Pages => {
                let mut pages = Pages::new(len).expect("memory between guard pages");
                pages.fill(GUARD);
                let start = (pages.len() - len) / ALIGN * ALIGN;
                (Memory::Mapped(pages), start)
            }
        };
        memory[start..start + len].fill(fill);
        Self { memory, fence, start, len }
    }

    /// The same bytes in other memory.
    #[must_use]
    pub fn copy_within(&self, fence: Fence) -> Self {
        let mut copy = Self::within(fence, self.len, 0);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    /// The bytes on loan.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The bytes on loan.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// Whether nothing outside was written.
    pub fn is_intact(&self) -> bool {
        let (before, after) = (&self.memory[..self.start], &self.memory[self.start + self.len..]);
        before.iter().chain(after).all(|&byte| byte == GUARD)
    }
}

impl Clone for Guarded {
    /// The same bytes in memory of its own, aligned again, its guards as good or as broken as these.
    fn clone(&self) -> Self {
        let mut clone = self.copy_within(self.fence);
        if !self.is_intact() {
            // One of the two may have no bytes between pages.
            let (start, end) = (clone.start, clone.start + clone.len);
            clone.memory[..start].fill(!GUARD);
            clone.memory[end..].fill(!GUARD);
        }
        clone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_written_beside_the_region_is_seen() {
        for fence in [Fence::Bytes, Fence::Pages] {
            for len in [0, 1, 64, 100, 5000] {
                let mut region = Guarded::within(fence, len, 0xff);
                assert_eq!(region.bytes().as_ptr().addr() % ALIGN, 0);
                assert!(region.bytes().iter().all(|&byte| byte == 0xff));
                region.bytes_mut().fill(1);
                assert!(region.is_intact());
                // Between pages there are no bytes where the region ends, or starts, with a page.
                let behind = Some(region.start + len).filter(|&at| at < region.memory.len());
                for at in [region.start.checked_sub(1), behind].into_iter().flatten() {
                    let kept = std::mem::replace(&mut region.memory[at], 0);
                    assert!(!region.is_intact() && !region.clone().is_intact());
                    region.memory[at] = kept;
                    assert!(region.is_intact() && region.clone().is_intact());
                }
            }
        }
    }

    #[test]
    fn between_pages_a_region_ends_less_than_its_alignment_before_the_page_behind() {
        for len in [0, 1, 64, 100, 4096, 5000] {
            let region = Guarded::within(Fence::Pages, len, 0);
            let gap = region.memory.len() - region.start - len;
            assert!(gap < ALIGN, "{len} bytes, {gap} behind");
        }
    }
}
