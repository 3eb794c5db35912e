//! Memory of a card.

#![allow(unsafe_code)]

use cudarc::driver::sys;

use crate::error::check;
use crate::staging::PIECE;
use crate::{Arg, Card, Error, Result};

/// Bytes on a card. Those that were taken here start at a multiple of 256 and are freed when dropped.
#[derive(Debug)]
pub struct Memory {
    card: Card,
    address: u64,
    bytes: usize,
    /// Whether somebody else frees them.
    lent: bool,
}

impl Memory {
    /// `bytes` of `card`, as they are.
    pub(crate) fn take(card: &Card, bytes: usize) -> Result<Self> {
        let mut address = 0;
        if bytes > 0 {
            card.bind()?;
            // SAFETY: a place for an address, and a current context.
            let code = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) };
            if code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                let (free, total) = card.memory_info()?;
                return Err(Error::Full { wanted: bytes, free, total });
            }
            check("cuMemAlloc", code)?;
        }
        Ok(Self { card: card.clone(), address, bytes, lent: false })
    }

    /// `bytes` from `address` on that somebody else has taken, and frees.
    ///
    /// # Safety
    /// They are memory of `card` that nobody else uses as long as this is used, and until the stream has come past all
    /// that it is used for.
    pub unsafe fn lent(card: &Card, address: u64, bytes: usize) -> Self {
        Self { card: card.clone(), address, bytes, lent: true }
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Where it starts.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where byte `offset` lies, as an argument of a kernel.
    ///
    /// # Panics
    /// If it is not within.
    pub fn at(&self, offset: usize) -> Arg {
        assert!(offset <= self.bytes, "byte {offset} of {}", self.bytes);
        Arg::Address(self.address + offset as u64)
    }

    /// Asks the stream to copy `source` to the bytes from `offset` on. `source` is read before this comes back.
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.within(offset, source.len());
        if source.is_empty() {
            return Ok(());
        }
        if source.len() > PIECE {
            let copy = |at: usize, piece: &mut [u8]| piece.copy_from_slice(&source[at..][..piece.len()]);
            return self.write_with(offset, source.len(), copy);
        }
        self.card.bind()?;
        // SAFETY: the bytes lie within; memory that is not pinned is read before the call comes back.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                self.address + offset as u64,
                source.as_ptr().cast(),
                source.len(),
                self.card.stream(),
            )
        })
    }

    /// Asks the stream to copy `bytes` bytes that `fill` writes to those from `offset` on, some at a time: while the card
    /// copies, it writes the next. It is given the number of the first one, a multiple of 1 MiB, and all that it has
    /// to write; other copies of the card wait for it meanwhile, so that it may not ask for one.
    pub fn write_with(&self, offset: usize, bytes: usize, fill: impl FnMut(usize, &mut [u8])) -> Result<()> {
        self.within(offset, bytes);
        if bytes == 0 {
            return Ok(());
        }
        self.card.bind()?;
        let address = self.address + offset as u64;
        // SAFETY: the bytes lie within.
        self.card.staged(|staging, stream| unsafe { staging.write(stream, address, bytes, fill) })
    }

    /// Copies the bytes from `offset` on to `target`, after all that was asked of the stream before.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        self.within(offset, target.len());
        if target.is_empty() {
            return Ok(());
        }
        self.card.bind()?;
        if target.len() > PIECE {
            let address = self.address + offset as u64;
            // SAFETY: the bytes lie within.
            return self.card.staged(|staging, stream| unsafe { staging.read(stream, address, target) });
        }
        // SAFETY: the bytes lie within, and `target` is not touched before the stream was waited for.
        check("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                target.as_mut_ptr().cast(),
                self.address + offset as u64,
                target.len(),
                self.card.stream(),
            )
        })?;
        self.card.synchronize()
    }

    /// Asks the stream to set `bytes` bytes from `offset` on to `value`.
    pub fn fill(&self, offset: usize, bytes: usize, value: u8) -> Result<()> {
        self.within(offset, bytes);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the bytes lie within.
        unsafe { fill(&self.card, self.address + offset as u64, bytes, value) }
    }

    /// Asks the stream to copy `bytes` bytes of `source` here.
    pub fn copy(&self, offset: usize, source: &Self, from: usize, bytes: usize) -> Result<()> {
        self.within(offset, bytes);
        source.within(from, bytes);
        if bytes == 0 {
            return Ok(());
        }
        self.card.bind()?;
        // SAFETY: the bytes lie within both.
        check("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(
                self.address + offset as u64,
                source.address + from as u64,
                bytes,
                self.card.stream(),
            )
        })
    }

    fn within(&self, offset: usize, bytes: usize) {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.bytes), "{bytes} bytes at {offset} of {}", self.bytes);
    }
}

/// Asks the stream of `card` to set `bytes` bytes from `address` on to `value`.
///
/// # Safety
/// They are memory of the card that lives until the stream has come past this.
pub(crate) unsafe fn fill(card: &Card, address: u64, bytes: usize, value: u8) -> Result<()> {
    card.bind()?;
    // SAFETY: the caller's.
    check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(address, value, bytes, card.stream()) })
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 && !self.lent && self.card.bind().is_ok() {
            // SAFETY: taken once; the driver waits for the work that uses it.
            unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}
