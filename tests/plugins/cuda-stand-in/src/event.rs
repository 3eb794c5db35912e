//! Events: marks in streams, with the time at which the work before them was done.

use std::ffi::c_uint;
use std::time::Instant;

use crate::codes::{Code, INVALID_HANDLE, NOT_READY, STREAM_CAPTURE_UNSUPPORTED};
use crate::operation::Operation;
use crate::state::{State, known};
use crate::stream::{self, Mark};

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: c_uint = 2;

/// A mark in a stream.
pub(crate) struct Event {
    flags: c_uint,
    pub(crate) recorded: Option<Mark>,
    /// Recorded in a stream that was captured: nobody can wait for it.
    pub(crate) captured: bool,
    pub(crate) time: Option<Instant>,
}

fn mark(state: &State, event: usize) -> Result<Option<Mark>, Code> {
    let event = known(&state.events, event)?;
    if event.captured { Err(STREAM_CAPTURE_UNSUPPORTED) } else { Ok(event.recorded) }
}

fn elapsed_ms(start: usize, end: usize) -> Result<f32, Code> {
    let state = State::enter()?;
    let time = |event| {
        let event = known(&state.events, event)?;
        if event.flags & NO_TIMING != 0 || event.recorded.is_none() {
            return Err(INVALID_HANDLE);
        }
        event.time.ok_or(NOT_READY)
    };
    let (start, end) = (time(start)?, time(end)?);
    Ok((end.saturating_duration_since(start).as_secs_f64() * 1e3) as f32)
}

driver! {
    fn cuEventCreate(event: *mut usize, flags: c_uint) {
        let mut state = State::enter()?;
        let handle = state.handle();
        state.events.insert(handle, Event { flags, recorded: None, captured: false, time: None });
        event.write(handle);
        Ok(())
    }

    fn cuEventDestroy_v2(event: usize) {
        let mut state = State::enter()?;
        state.events.remove(&event).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuEventRecord(event: usize, stream: usize) {
        let mut state = State::enter()?;
        known(&state.events, event)?;
        let mark = stream::push(&mut state, stream, Operation::Record { event }, Vec::new())?;
        if let Some(event) = state.events.get_mut(&event) {
            event.captured = mark.is_none();
            event.recorded = mark;
            event.time = None;
        }
        Ok(())
    }

    fn cuEventSynchronize(event: usize) {
        let mut state = State::enter()?;
        if let Some(mark) = mark(&state, event)? {
            stream::finish(&mut state, &[mark]);
        }
        Ok(())
    }

    fn cuEventQuery(event: usize) {
        let mut state = State::enter()?;
        match mark(&state, event)? {
            Some(mark) if !stream::is_done(&state.streams, mark) => {
                stream::step(&mut state, mark.0);
                Err(NOT_READY)
            }
            _ => Ok(()),
        }
    }

    fn cuEventElapsedTime(milliseconds: *mut f32, start: usize, end: usize) {
        milliseconds.write(elapsed_ms(start, end)?);
        Ok(())
    }

    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) {
        milliseconds.write(elapsed_ms(start, end)?);
        Ok(())
    }
}
