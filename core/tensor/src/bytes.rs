//! Bytes for whoever lays them out: a region that starts at a cache line.

use fp8flow_cuda::{Card, Memory};

/// Alignment of a region.
const ALIGN: usize = 64;

/// A region of bytes that starts at a multiple of 64, in the CPU's memory or a card's.
#[derive(Debug)]
pub struct Bytes(Home);

#[derive(Debug)]
enum Home {
    Cpu { memory: Vec<u8>, start: usize, len: usize },
    Card(Memory),
}

impl Default for Bytes {
    fn default() -> Self {
        Self(Home::Cpu { memory: Vec::new(), start: 0, len: 0 })
    }
}

impl Bytes {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Self(Home::Cpu { memory, start, len })
    }

    /// `len` zeros on a card.
    pub fn zeros_on(card: &Card, len: usize) -> fp8flow_cuda::Result<Self> {
        if len == 0 {
            return Ok(Self::default());
        }
        let memory = card.take(len)?;
        memory.fill(0, len, 0)?;
        Ok(Self(Home::Card(memory)))
    }

    /// The bytes. On a card, address and length of them: they are lent on, and looked at only there.
    pub fn get(&self) -> &[u8] {
        match &self.0 {
            Home::Cpu { memory, start, len } => &memory[*start..][..*len],
            // SAFETY: nobody reads through this slice: it crosses the border to a plugin that works on cards, which
            // takes its address and length. The memory lives as long as the slice.
            #[allow(unsafe_code)]
            Home::Card(memory) => unsafe {
                std::slice::from_raw_parts(
                    std::ptr::without_provenance(memory.address() as usize),
                    memory.bytes(),
                )
            },
        }
    }

    /// The bytes, to write; on a card as [`Bytes::get`] says.
    pub fn get_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Home::Cpu { memory, start, len } => &mut memory[*start..][..*len],
            // SAFETY: as above; and nobody else has the address meanwhile.
            #[allow(unsafe_code)]
            Home::Card(memory) => unsafe {
                let address = std::ptr::without_provenance_mut(memory.address() as usize);
                std::slice::from_raw_parts_mut(address, memory.bytes())
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_starts_at_a_cache_line_and_has_its_length() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let mut bytes = Bytes::zeros(len);
            assert_eq!(bytes.get_mut().len(), len);
            assert!(len == 0 || bytes.get().as_ptr().addr().is_multiple_of(ALIGN));
        }
    }
}
