//! Primary contexts, and which of them a thread works in.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::Mutex;

use crate::cards::{self, card};
use crate::codes::{Code, INVALID_CONTEXT, NOT_INITIALIZED};
use crate::state::{State, locked};
use crate::stream;

/// Handles are this and the number of the card.
const HANDLE: usize = 0xC0_0000;
const CARDS: usize = 16;

/// How often each card's context is retained.
static RETAINED: Mutex<[u32; CARDS]> = Mutex::new([0; CARDS]);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn device_of(handle: usize) -> Option<usize> {
    let device = handle.checked_sub(HANDLE).filter(|device| *device < CARDS)?;
    (locked(&RETAINED)[device] > 0).then_some(device)
}

/// The card that this thread works on.
pub(crate) fn device() -> Result<c_int, Code> {
    if !cards::started() {
        return Err(NOT_INITIALIZED);
    }
    device_of(CURRENT.get()).map(|device| device as c_int).ok_or(INVALID_CONTEXT)
}

driver! {
    fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) {
        if !cards::started() {
            return Err(NOT_INITIALIZED);
        }
        card(device)?;
        locked(&RETAINED)[device as usize] += 1;
        context.write(HANDLE + device as usize);
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        card(device)?;
        let mut retained = locked(&RETAINED);
        let count = &mut retained[device as usize];
        *count = count.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        Ok(())
    }

    fn cuCtxSetCurrent(context: usize) {
        if context != 0 && device_of(context).is_none() {
            return Err(INVALID_CONTEXT);
        }
        CURRENT.set(context);
        Ok(())
    }

    fn cuCtxGetCurrent(context: *mut usize) {
        context.write(CURRENT.get());
        Ok(())
    }

    fn cuCtxGetDevice(device_out: *mut c_int) {
        device_out.write(device()?);
        Ok(())
    }

    fn cuCtxSynchronize() {
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        stream::finish_all(&mut state);
        Ok(())
    }
}
