//! Copies of what is large, by way of pinned memory: the card copies one piece while the CPU moves the other.
//!
//! Memory that is not pinned is copied by the driver through a buffer of its own, at a fraction of the bus's speed.

#![allow(unsafe_code)]

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUevent_flags_enum};

use crate::Result;
use crate::error::check;

/// Bytes of a piece.
pub(crate) const PIECE: usize = 16 << 20;

/// Two pieces of pinned memory, and when the card has come past each. Made, used and dropped with the card current.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    pieces: [usize; 2],
    done: [usize; 2],
}

impl Staging {
    pub(crate) fn new() -> Result<Self> {
        let mut staging = Self::default();
        for (piece, done) in staging.pieces.iter_mut().zip(&mut staging.done) {
            let mut place: *mut c_void = std::ptr::null_mut();
            // SAFETY: a place for a pointer, and a current context.
            check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut place, PIECE, 0) })?;
            *piece = place.expose_provenance();
            let mut event = std::ptr::null_mut();
            let flags = CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: as above.
            check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags) })?;
            *done = event.expose_provenance();
        }
        Ok(staging)
    }

    fn piece(&self, which: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.pieces[which])
    }

    fn event(&self, which: usize) -> sys::CUevent {
        std::ptr::with_exposed_provenance_mut(self.done[which])
    }

    /// Notes that the stream will have come past what was asked of this piece.
    fn record(&self, which: usize, stream: sys::CUstream) -> Result<()> {
        // SAFETY: a live event and a live stream.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.event(which), stream) })
    }

    /// Waits until the stream has come past it; not at all for a piece that nothing was asked of.
    fn wait(&self, which: usize) -> Result<()> {
        // SAFETY: a live event.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.event(which)) })
    }

    /// Copies the bytes at `address` on the card to `target`, and waits for them.
    ///
    /// # Safety
    /// They are memory of the card whose stream this is.
    pub(crate) unsafe fn read(&self, stream: sys::CUstream, address: u64, target: &mut [u8]) -> Result<()> {
        let count = target.len().div_ceil(PIECE);
        // A piece is asked for while the one before it is moved.
        for i in 0..=count {
            if i < count {
                let (at, len) = (i * PIECE, PIECE.min(target.len() - i * PIECE));
                // SAFETY: the caller's; the piece is as large, and was moved two rounds ago.
                check("cuMemcpyDtoHAsync", unsafe {
                    sys::cuMemcpyDtoHAsync_v2(self.piece(i % 2).cast(), address + at as u64, len, stream)
                })?;
                self.record(i % 2, stream)?;
            }
            if let Some(before) = i.checked_sub(1) {
                self.wait(before % 2)?;
                let target = &mut target[before * PIECE..];
                let len = PIECE.min(target.len());
                // SAFETY: the card has written it, and is asked for nothing more of it meanwhile.
                let moved = unsafe { std::slice::from_raw_parts(self.piece(before % 2), len) };
                target[..len].copy_from_slice(moved);
            }
        }
        Ok(())
    }

    /// Copies `bytes` bytes that `fill` writes to `address` on the card: it is given where each piece starts, and the
    /// piece. The last ones may be under way when this comes back.
    ///
    /// # Safety
    /// There are as many bytes of memory of the card whose stream this is.
    pub(crate) unsafe fn write(
        &self,
        stream: sys::CUstream,
        address: u64,
        bytes: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        for (i, at) in (0..bytes).step_by(PIECE).enumerate() {
            // Until the card has read what this copy, or one before it, has put there.
            self.wait(i % 2)?;
            let (place, len) = (self.piece(i % 2), PIECE.min(bytes - at));
            // SAFETY: as large as any piece, and read by the card.
            fill(at, unsafe { std::slice::from_raw_parts_mut(place, len) });
            // SAFETY: the caller's; the piece holds as many.
            check("cuMemcpyHtoDAsync", unsafe {
                sys::cuMemcpyHtoDAsync_v2(address + at as u64, place.cast(), len, stream)
            })?;
            self.record(i % 2, stream)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for piece in self.pieces.into_iter().filter(|piece| *piece != 0) {
            // SAFETY: taken once; the card is idle when this goes.
            unsafe { sys::cuMemFreeHost(std::ptr::with_exposed_provenance_mut(piece)) };
        }
        for event in self.done.into_iter().filter(|event| *event != 0) {
            // SAFETY: made once.
            unsafe { sys::cuEventDestroy_v2(std::ptr::with_exposed_provenance_mut(event)) };
        }
    }
}
