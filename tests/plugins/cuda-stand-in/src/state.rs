//! Everything with a handle, behind one lock: host threads take turns, as they do at the real driver's.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::codes::{Code, INVALID_HANDLE, STREAM_CAPTURE_UNSUPPORTED};
use crate::context;
use crate::event::Event;
use crate::module::{Function, Module};
use crate::operation::Operation;
use crate::stream::Stream;

/// Recorded operations, in order.
pub(crate) type Graph = Arc<Vec<Operation>>;

/// What the driver knows by handle.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) streams: HashMap<usize, Stream>,
    pub(crate) events: HashMap<usize, Event>,
    pub(crate) modules: HashMap<usize, Arc<Module>>,
    pub(crate) functions: HashMap<usize, Function>,
    pub(crate) graphs: HashMap<usize, Graph>,
    pub(crate) executables: HashMap<usize, Graph>,
    last: usize,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

/// Locks: whoever panicked with the lock aborted the process.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `handle` out of a table.
pub(crate) fn known<T>(table: &HashMap<usize, T>, handle: usize) -> Result<&T, Code> {
    table.get(&handle).ok_or(INVALID_HANDLE)
}

impl State {
    /// For a call that needs a current context.
    pub(crate) fn enter() -> Result<MutexGuard<'static, Self>, Code> {
        context::device()?;
        Ok(Self::any())
    }

    /// For a call that needs none.
    pub(crate) fn any() -> MutexGuard<'static, Self> {
        locked(&STATE)
    }

    /// A handle that was never given before, so that a stale one is known.
    pub(crate) fn handle(&mut self) -> usize {
        self.last += 0x10;
        0xE000_0000 + self.last
    }

    /// The stream of a handle; the legacy stream of the current card where it is 0.
    pub(crate) fn stream(&mut self, handle: usize) -> Result<(usize, &mut Stream), Code> {
        let device = context::device()?;
        let key = if handle == 0 { legacy(device) } else { handle };
        if handle == 0 {
            self.streams.entry(key).or_insert_with(|| Stream::new(device, true));
        }
        let stream =
            self.streams.get_mut(&key).filter(|stream| stream.device == device).ok_or(INVALID_HANDLE)?;
        Ok((key, stream))
    }

    /// Refuses a call that the driver may not make while a stream is captured, and spoils the capture.
    pub(crate) fn forbid_in_capture(&mut self) -> Result<(), Code> {
        let thread = std::thread::current().id();
        let mut refused = false;
        for capture in self.streams.values_mut().filter_map(|stream| stream.capture.as_mut()) {
            if capture.forbids(thread) {
                capture.spoilt = true;
                refused = true;
            }
        }
        if refused { Err(STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }
}

/// The key of a card's legacy stream, which has no handle.
pub(crate) fn legacy(device: c_int) -> usize {
    1 + device as usize
}
