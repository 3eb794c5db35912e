//! Copies and fills.
//!
//! Page-locked memory is read and written when the copy runs. Pageable memory is read at the call; a copy into pageable
//! memory is over when the call returns, as the driver's documentation says.

use std::ffi::{c_uchar, c_uint, c_ushort};
use std::sync::Arc;

use crate::codes::{Code, INVALID_VALUE};
use crate::memory::{Place, place, touches_card};
use crate::operation::Operation;
use crate::state::State;
use crate::stream::{self, push};

fn on_card(at: usize, bytes: usize) -> Result<(), Code> {
    if place(at, bytes) == Some(Place::Card) { Ok(()) } else { Err(INVALID_VALUE) }
}

/// Whether host memory is page-locked; memory of the card is refused.
fn pinned(at: usize, bytes: usize) -> Result<bool, Code> {
    if at == 0 || touches_card(at, bytes) {
        return Err(INVALID_VALUE);
    }
    Ok(place(at, bytes) == Some(Place::Pinned))
}

unsafe fn to_card(to: usize, from: usize, bytes: usize, stream: usize) -> Result<(), Code> {
    let mut state = State::enter()?;
    if bytes == 0 {
        return Ok(());
    }
    on_card(to, bytes)?;
    let operation = if pinned(from, bytes)? {
        Operation::Copy { to, from, bytes }
    } else {
        if state.stream(stream)?.1.capture.is_some() {
            // A graph would read it when it may be long gone.
            return stream::end(&mut state, stream).map(|_| ());
        }
        let staged = std::slice::from_raw_parts(from as *const u8, bytes);
        Operation::Staged { to, bytes: Arc::from(staged) }
    };
    push(&mut state, stream, operation, Vec::new())?;
    Ok(())
}

fn to_host(to: usize, from: usize, bytes: usize, stream: usize) -> Result<(), Code> {
    let mut state = State::enter()?;
    if bytes == 0 {
        return Ok(());
    }
    on_card(from, bytes)?;
    if pinned(to, bytes)? {
        push(&mut state, stream, Operation::Copy { to, from, bytes }, Vec::new())?;
    } else {
        stream::end(&mut state, stream)?;
        let mark = push(&mut state, stream, Operation::Return { to, from, bytes }, Vec::new())?;
        stream::finish(&mut state, mark.as_slice());
    }
    Ok(())
}

fn within_card(to: usize, from: usize, bytes: usize, stream: usize) -> Result<(), Code> {
    let mut state = State::enter()?;
    if bytes == 0 {
        return Ok(());
    }
    on_card(to, bytes)?;
    on_card(from, bytes)?;
    if to < from + bytes && from < to + bytes {
        return Err(INVALID_VALUE);
    }
    push(&mut state, stream, Operation::Copy { to, from, bytes }, Vec::new())?;
    Ok(())
}

fn fill(to: usize, pattern: &[u8], count: usize, stream: usize) -> Result<(), Code> {
    let mut state = State::enter()?;
    if count == 0 {
        return Ok(());
    }
    if !to.is_multiple_of(pattern.len()) {
        return Err(INVALID_VALUE);
    }
    on_card(to, count.checked_mul(pattern.len()).ok_or(INVALID_VALUE)?)?;
    push(&mut state, stream, Operation::Fill { to, pattern: Arc::from(pattern), count }, Vec::new())?;
    Ok(())
}

/// The end of a call that waits.
fn wait() -> Result<(), Code> {
    let mut state = State::enter()?;
    let mark = stream::end(&mut state, 0)?;
    stream::finish(&mut state, &[mark]);
    Ok(())
}

fn may_wait() -> Result<(), Code> {
    State::enter()?.forbid_in_capture()
}

driver! {
    fn cuMemcpyHtoDAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) {
        to_card(to, from, bytes, stream)
    }

    fn cuMemcpyDtoHAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) {
        to_host(to, from, bytes, stream)
    }

    fn cuMemcpyDtoDAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) {
        within_card(to, from, bytes, stream)
    }

    fn cuMemcpyHtoD_v2(to: usize, from: usize, bytes: usize) {
        may_wait()?;
        to_card(to, from, bytes, 0)?;
        wait()
    }

    fn cuMemcpyDtoH_v2(to: usize, from: usize, bytes: usize) {
        may_wait()?;
        to_host(to, from, bytes, 0)?;
        wait()
    }

    fn cuMemcpyDtoD_v2(to: usize, from: usize, bytes: usize) {
        may_wait()?;
        within_card(to, from, bytes, 0)
    }

    fn cuMemsetD8Async(to: usize, value: c_uchar, count: usize, stream: usize) {
        fill(to, &[value], count, stream)
    }

    fn cuMemsetD16Async(to: usize, value: c_ushort, count: usize, stream: usize) {
        fill(to, &value.to_ne_bytes(), count, stream)
    }

    fn cuMemsetD32Async(to: usize, value: c_uint, count: usize, stream: usize) {
        fill(to, &value.to_ne_bytes(), count, stream)
    }

    fn cuMemsetD8_v2(to: usize, value: c_uchar, count: usize) {
        may_wait()?;
        fill(to, &[value], count, 0)
    }

    fn cuMemsetD32_v2(to: usize, value: c_uint, count: usize) {
        may_wait()?;
        fill(to, &value.to_ne_bytes(), count, 0)
    }
}
