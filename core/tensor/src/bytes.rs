//! Bytes for whoever lays them out: a region that starts at a cache line.

/// Alignment of a region.
const ALIGN: usize = 64;

/// A region of bytes that starts at a multiple of 64.
#[derive(Debug, Default)]
pub struct Bytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bytes {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { memory, start, len }
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }

    /// The bytes, to write.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
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
