//! Moments of a stream, to measure what lies between.

#![allow(unsafe_code)]

use cudarc::driver::sys::{self, CUevent_flags_enum};

use crate::error::check;
use crate::{Card, Result, library};

/// The bindings of CUDA 13 know the second version of this function alone, which drivers before 12.8 lack.
type ElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;

/// A moment: when the stream came past it.
#[derive(Debug)]
pub struct Event {
    card: Card,
    handle: usize,
}

impl Event {
    /// A moment of `card`, not yet in its stream.
    pub fn new(card: &Card) -> Result<Self> {
        card.bind()?;
        let mut event = std::ptr::null_mut();
        let flags = CUevent_flags_enum::CU_EVENT_DEFAULT as u32;
        // SAFETY: a place for a pointer, and a current context.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags) })?;
        Ok(Self { card: card.clone(), handle: event.expose_provenance() })
    }

    fn raw(&self) -> sys::CUevent {
        std::ptr::with_exposed_provenance_mut(self.handle)
    }

    /// Puts it behind all that was asked of the stream.
    pub fn record(&self) -> Result<()> {
        self.card.bind()?;
        // SAFETY: a live event and a live stream of one card.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw(), self.card.stream()) })
    }

    /// Milliseconds from `earlier` to this, both recorded; waits until the stream has come here.
    pub fn since_ms(&self, earlier: &Self) -> Result<f32> {
        self.card.bind()?;
        // SAFETY: a live event.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw()) })?;
        // SAFETY: the type is that of `cuda.h`, since CUDA 3.
        let elapsed_time = unsafe { library::function::<ElapsedTime>("cuEventElapsedTime")? };
        let mut ms = 0.0;
        // SAFETY: a place for a float, and two live events.
        check("cuEventElapsedTime", unsafe { elapsed_time(&raw mut ms, earlier.raw(), self.raw()) })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.card.bind().is_ok() {
            // SAFETY: made once; the driver keeps it until the stream has come past it.
            unsafe { sys::cuEventDestroy_v2(self.raw()) };
        }
    }
}
