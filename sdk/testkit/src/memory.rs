//! Memory lent to a backend, between guard bytes that must not change.

use fp8flow_sdk::region::ALIGN;

const GUARD: u8 = 0xc3;
const GUARD_BYTES: usize = 2 * ALIGN;

/// Aligned bytes with guards on both sides.
#[derive(Debug)]
pub struct Guarded {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Guarded {
    /// `len` bytes of `fill`, starting at a multiple of 64.
    pub fn new(len: usize, fill: u8) -> Self {
        let mut memory = vec![GUARD; len + ALIGN + 2 * GUARD_BYTES];
        let start = GUARD_BYTES + memory[GUARD_BYTES..].as_ptr().align_offset(ALIGN);
        memory[start..start + len].fill(fill);
        Self { memory, start, len }
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
        let mut clone = Self::new(self.len, 0);
        clone.bytes_mut().copy_from_slice(self.bytes());
        if !self.is_intact() {
            clone.memory[..clone.start].fill(!GUARD);
        }
        clone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_written_beside_the_region_is_seen() {
        for len in [0, 1, 64, 100] {
            let mut region = Guarded::new(len, 0xff);
            assert_eq!(region.bytes().as_ptr().addr() % ALIGN, 0);
            assert!(region.bytes().iter().all(|&byte| byte == 0xff));
            region.bytes_mut().fill(1);
            assert!(region.is_intact());
            for at in [region.start - 1, region.start + len] {
                let kept = std::mem::replace(&mut region.memory[at], 0);
                assert!(!region.is_intact() && !region.clone().is_intact());
                region.memory[at] = kept;
                assert!(region.is_intact() && region.clone().is_intact());
            }
        }
    }
}
