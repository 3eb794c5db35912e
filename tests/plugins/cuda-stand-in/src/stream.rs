//! Streams: queues whose work is done when somebody waits for it, and not a moment earlier.

use std::collections::{HashMap, VecDeque};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::thread::ThreadId;

use crate::codes::{
    Code, INVALID_HANDLE, INVALID_VALUE, NOT_READY, STREAM_CAPTURE_IMPLICIT, STREAM_CAPTURE_INVALIDATED,
    STREAM_CAPTURE_ISOLATION, STREAM_CAPTURE_UNMATCHED, STREAM_CAPTURE_UNSUPPORTED,
    STREAM_CAPTURE_WRONG_THREAD,
};
use crate::context;
use crate::memory::Open;
use crate::operation::{HostFunction, Operation};
use crate::state::{State, known, legacy};

/// A place in a stream: what was queued up to this number.
pub(crate) type Mark = (usize, u64);

/// A recording that has begun.
pub(crate) struct Capture {
    mode: c_int,
    thread: ThreadId,
    recorded: Vec<Operation>,
    /// Something was called that may not be called meanwhile.
    pub(crate) spoilt: bool,
}

impl Capture {
    /// Whether a call of this thread that may have side effects on the capture is refused.
    pub(crate) fn forbids(&self, thread: ThreadId) -> bool {
        match self.mode {
            0 => true,
            1 => self.thread == thread,
            _ => false,
        }
    }
}

struct Queued {
    number: u64,
    after: Vec<Mark>,
    operation: Operation,
}

/// A queue.
pub(crate) struct Stream {
    pub(crate) device: c_int,
    /// Takes turns with the legacy stream.
    blocking: bool,
    queue: VecDeque<Queued>,
    queued: u64,
    done: u64,
    pub(crate) capture: Option<Capture>,
}

impl Stream {
    pub(crate) fn new(device: c_int, blocking: bool) -> Self {
        Self { device, blocking, queue: VecDeque::new(), queued: 0, done: 0, capture: None }
    }
}

/// Queues an operation after `after`, or records it where the stream is captured (then there is no mark).
pub(crate) fn push(
    state: &mut State,
    stream: usize,
    operation: Operation,
    mut after: Vec<Mark>,
) -> Result<Option<Mark>, Code> {
    let (key, found) = state.stream(stream)?;
    let (device, blocking, first) = (found.device, found.blocking, legacy(found.device));
    if let Some(capture) = &mut found.capture {
        if capture.spoilt {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        if !after.is_empty() {
            capture.spoilt = true;
            return Err(STREAM_CAPTURE_ISOLATION);
        }
        capture.recorded.push(operation);
        return Ok(None);
    }
    if key == first {
        let others = state
            .streams
            .iter_mut()
            .filter(|(other, stream)| **other != first && stream.blocking && stream.device == device);
        for (other, stream) in others {
            if let Some(capture) = &mut stream.capture {
                capture.spoilt = true;
                return Err(STREAM_CAPTURE_IMPLICIT);
            }
            after.push((*other, stream.queued));
        }
    } else if blocking {
        after.extend(state.streams.get(&first).map(|stream| (first, stream.queued)));
    }
    let (_, found) = state.stream(stream)?;
    found.queued += 1;
    found.queue.push_back(Queued { number: found.queued, after, operation });
    Ok(Some((key, found.queued)))
}

/// Does what a mark waits for.
pub(crate) fn finish(state: &mut State, marks: &[Mark]) {
    let pending = |(key, number): &Mark| state.streams.get(key).is_some_and(|stream| stream.done < *number);
    if marks.iter().any(pending) {
        let _open = Open::new();
        for mark in marks {
            reach(state, *mark);
        }
    }
}

fn reach(state: &mut State, (key, number): Mark) {
    loop {
        let Some(stream) = state.streams.get_mut(&key).filter(|stream| stream.done < number) else { return };
        let Some(next) = stream.queue.pop_front() else { return };
        for mark in next.after {
            reach(state, mark);
        }
        next.operation.run(state);
        if let Some(stream) = state.streams.get_mut(&key) {
            stream.done = next.number;
        }
    }
}

/// Does all that is queued anywhere.
pub(crate) fn finish_all(state: &mut State) {
    let marks: Vec<Mark> = state.streams.iter().map(|(key, stream)| (*key, stream.queued)).collect();
    finish(state, &marks);
}

/// Whether everything up to the mark is done.
pub(crate) fn is_done(streams: &HashMap<usize, Stream>, (key, number): Mark) -> bool {
    streams.get(&key).is_none_or(|stream| stream.done >= number)
}

/// Does one operation of a stream, for those who ask again and again whether it is done.
pub(crate) fn step(state: &mut State, key: usize) {
    let next = state.streams.get(&key).map(|stream| stream.done + 1);
    if let Some(number) = next {
        finish(state, &[(key, number)]);
    }
}

/// The end of a stream that is not being captured.
pub(crate) fn end(state: &mut State, stream: usize) -> Result<Mark, Code> {
    let (key, stream) = state.stream(stream)?;
    if let Some(capture) = &mut stream.capture {
        capture.spoilt = true;
        return Err(STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok((key, stream.queued))
}

driver! {
    fn cuStreamCreate(stream: *mut usize, flags: c_uint) {
        let mut state = State::enter()?;
        let handle = state.handle();
        state.streams.insert(handle, Stream::new(context::device()?, flags & 1 == 0));
        stream.write(handle);
        Ok(())
    }

    fn cuStreamCreateWithPriority(stream: *mut usize, flags: c_uint, _priority: c_int) {
        match cuStreamCreate(stream, flags) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    fn cuStreamDestroy_v2(stream: usize) {
        let mut state = State::enter()?;
        known(&state.streams, stream)?;
        let mark = end(&mut state, stream)?;
        finish(&mut state, &[mark]);
        state.streams.remove(&stream);
        Ok(())
    }

    fn cuStreamSynchronize(stream: usize) {
        let mut state = State::enter()?;
        let mark = end(&mut state, stream)?;
        finish(&mut state, &[mark]);
        Ok(())
    }

    fn cuStreamQuery(stream: usize) {
        let mut state = State::enter()?;
        let mark = end(&mut state, stream)?;
        if is_done(&state.streams, mark) {
            return Ok(());
        }
        step(&mut state, mark.0);
        Err(NOT_READY)
    }

    fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) {
        let mut state = State::enter()?;
        let event = known(&state.events, event)?;
        if event.captured {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        let after = event.recorded.into_iter().collect();
        push(&mut state, stream, Operation::Wait, after)?;
        Ok(())
    }

    fn cuLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: *mut c_void) {
        let mut state = State::enter()?;
        let function = function.ok_or(INVALID_VALUE)?;
        push(&mut state, stream, Operation::Host { function, data: data as usize }, Vec::new())?;
        Ok(())
    }

    fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) {
        let mut state = State::enter()?;
        let (_, found) = state.stream(stream)?;
        if stream == 0 || found.capture.is_some() {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        let thread = std::thread::current().id();
        found.capture = Some(Capture { mode, thread, recorded: Vec::new(), spoilt: false });
        Ok(())
    }

    fn cuStreamEndCapture(stream: usize, graph: *mut usize) {
        let mut state = State::enter()?;
        graph.write(0);
        let (_, found) = state.stream(stream)?;
        let capture = found.capture.as_ref().ok_or(STREAM_CAPTURE_UNMATCHED)?;
        if capture.mode != 2 && capture.thread != std::thread::current().id() {
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = found.capture.take().ok_or(INVALID_HANDLE)?;
        if capture.spoilt {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        let handle = state.handle();
        state.graphs.insert(handle, Arc::new(capture.recorded));
        graph.write(handle);
        Ok(())
    }

    fn cuStreamIsCapturing(stream: usize, status: *mut c_int) {
        let mut state = State::enter()?;
        let (_, found) = state.stream(stream)?;
        status.write(found.capture.as_ref().map_or(0, |capture| if capture.spoilt { 2 } else { 1 }));
        Ok(())
    }
}
