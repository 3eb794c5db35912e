//! Typed slices of the memory on loan, so that a backend needs no unsafe code to lay out what it keeps.
//!
//! A region is dealt out from its front in pieces that each start at a multiple of [`ALIGN`]. Whoever writes and
//! whoever reads takes the same pieces in the same order, and [`piece`] adds up what [`crate::Memory`] should ask for.

use crate::{Error, Result};

/// Every region, and every piece of one, starts at a multiple of this.
pub const ALIGN: usize = 64;

/// The bytes a piece of `len` elements of `T` takes up, padding included.
pub const fn piece<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(ALIGN)
}

/// Deals out a region to be written.
#[derive(Debug)]
pub struct Carve<'a> {
    name: &'static str,
    left: &'a mut [u8],
}

impl<'a> Carve<'a> {
    /// Starts at the front of `region`, which errors call `name`.
    pub fn new(name: &'static str, region: &'a mut [u8]) -> Self {
        Self { name, left: region }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a mut [u8]> {
        let taken = piece::<u8>(len);
        let found = self.left.len();
        let (piece, left) = std::mem::take(&mut self.left)
            .split_at_mut_checked(taken)
            .ok_or_else(|| short(self.name, taken, found))?;
        self.left = left;
        Ok(&mut piece[..len])
    }

    /// The next `len` floats.
    pub fn floats(&mut self, len: usize) -> Result<&'a mut [f32]> {
        if len == 0 {
            return Ok(&mut []);
        }
        let bytes = self.bytes(len * size_of::<f32>())?;
        bytemuck::try_cast_slice_mut(bytes).map_err(|_| misaligned(self.name))
    }
}

/// Deals out a region as it was written.
#[derive(Clone, Debug)]
pub struct Read<'a> {
    name: &'static str,
    left: &'a [u8],
}

impl<'a> Read<'a> {
    /// Starts at the front of `region`, which errors call `name`.
    pub fn new(name: &'static str, region: &'a [u8]) -> Self {
        Self { name, left: region }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = piece::<u8>(len);
        let (piece, left) =
            self.left.split_at_checked(taken).ok_or_else(|| short(self.name, taken, self.left.len()))?;
        self.left = left;
        Ok(&piece[..len])
    }

    /// The next `len` floats.
    pub fn floats(&mut self, len: usize) -> Result<&'a [f32]> {
        if len == 0 {
            return Ok(&[]);
        }
        let bytes = self.bytes(len * size_of::<f32>())?;
        bytemuck::try_cast_slice(bytes).map_err(|_| misaligned(self.name))
    }
}

fn short(name: &str, needed: usize, found: usize) -> Error {
    Error::protocol(format!("{name}: {needed} more bytes needed, {found} left"))
        .with_help("lend what `Linear::memory` asks for this number of tokens")
}

fn misaligned(name: &str) -> Error {
    Error::protocol(format!("{name}: the region does not start at a multiple of {ALIGN}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn aligned(region: &mut [u8]) -> &mut [u8] {
        let skip = region.as_ptr().align_offset(ALIGN);
        &mut region[skip..]
    }

    #[test]
    fn pieces_read_back_as_they_were_carved_and_start_aligned() {
        let mut memory = vec![0; 1024];
        let region = aligned(&mut memory);
        let needed = piece::<u8>(3) + piece::<f32>(17) + piece::<u8>(1);
        assert_eq!(needed, 64 + 128 + 64);
        let region = &mut region[..needed];

        let mut carve = Carve::new("saved", region);
        carve.bytes(3).unwrap().fill(7);
        carve.floats(17).unwrap().fill(0.5);
        carve.bytes(1).unwrap().fill(9);

        let mut read = Read::new("saved", region);
        assert_eq!(read.bytes(3).unwrap(), [7; 3]);
        let floats = read.floats(17).unwrap();
        assert_eq!(floats, [0.5; 17]);
        assert_eq!(floats.as_ptr().addr() % ALIGN, 0);
        assert_eq!(read.bytes(1).unwrap(), [9]);
        assert_eq!(read.bytes(1).unwrap_err().kind, ErrorKind::Protocol);
    }

    #[test]
    fn nothing_can_be_taken_from_nothing_and_too_little_is_said() {
        let mut carve = Carve::new("scratch", &mut []);
        assert!(carve.bytes(0).unwrap().is_empty() && carve.floats(0).unwrap().is_empty());
        let error = carve.floats(1).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(error.message.contains("scratch: 64 more bytes needed, 0 left"), "{error}");
    }

    #[test]
    fn a_misaligned_region_is_an_error() {
        let mut memory = vec![0; 256];
        let region = aligned(&mut memory);
        let error = Carve::new("saved", &mut region[1..]).floats(4).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
    }
}
