//! One piece of work in a stream, which can be done again by a graph.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use crate::launch::Launch;
use crate::lt::Product;
use crate::state::State;
use crate::{memory, say};

/// A function of the host's in a stream.
pub(crate) type HostFunction = unsafe extern "C" fn(*mut c_void);

/// Work that is done when somebody waits for it.
#[derive(Clone)]
pub(crate) enum Operation {
    Launch(Arc<Launch>),
    Product(Arc<Product>),
    /// Bytes that were taken from pageable memory at the call.
    Staged {
        to: usize,
        bytes: Arc<[u8]>,
    },
    /// Between memory of the card or page-locked memory.
    Copy {
        to: usize,
        from: usize,
        bytes: usize,
    },
    /// From the card to pageable memory; done within the call.
    Return {
        to: usize,
        from: usize,
        bytes: usize,
    },
    /// A pattern of 1, 2 or 4 bytes.
    Fill {
        to: usize,
        pattern: Arc<[u8]>,
        count: usize,
    },
    Record {
        event: usize,
    },
    Host {
        function: HostFunction,
        data: usize,
    },
    /// Waits for what it stands after.
    Wait,
}

impl Operation {
    /// Does it; the card's memory is open.
    pub(crate) fn run(&self, state: &mut State) {
        match self {
            Self::Launch(launch) => launch.run(),
            Self::Product(product) => product.run(),
            Self::Staged { to, bytes } => {
                require(*to, bytes.len());
                // SAFETY: the range is the card's and open; the bytes are our own.
                unsafe { (*to as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
            Self::Copy { to, from, bytes } => {
                require(*to, *bytes);
                require(*from, *bytes);
                // SAFETY: both ranges are the card's or page-locked.
                unsafe { (*to as *mut u8).copy_from(*from as *const u8, *bytes) };
            }
            Self::Return { to, from, bytes } => {
                require(*from, *bytes);
                // SAFETY: the range is the card's; the caller, who waits, vouches for the other.
                unsafe { (*to as *mut u8).copy_from_nonoverlapping(*from as *const u8, *bytes) };
            }
            Self::Fill { to, pattern, count } => {
                require(*to, pattern.len() * count);
                for i in 0..*count {
                    // SAFETY: within the range that was looked at.
                    unsafe {
                        let place = (*to as *mut u8).add(i * pattern.len());
                        place.copy_from_nonoverlapping(pattern.as_ptr(), pattern.len());
                    }
                }
            }
            Self::Record { event } => {
                if let Some(event) = state.events.get_mut(event) {
                    event.time = Some(Instant::now());
                }
            }
            // SAFETY: the caller of `cuLaunchHostFunc` gave both for this.
            Self::Host { function, data } => unsafe { function(*data as *mut c_void) },
            Self::Wait => {}
        }
        if let Some(overrun) = memory::overrun() {
            say::stop(&format!("{} {overrun}", self.name()));
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Launch(launch) => format!("kernel `{}`", launch.name),
            Self::Product(_) => "cublasLtMatmul".to_owned(),
            Self::Staged { .. } | Self::Copy { .. } | Self::Return { .. } => "a copy".to_owned(),
            Self::Fill { .. } => "a fill".to_owned(),
            Self::Record { .. } | Self::Host { .. } | Self::Wait => "an event".to_owned(),
        }
    }
}

/// A range that was sound when the work was queued may be gone when it runs: in a graph, say.
fn require(at: usize, bytes: usize) {
    if memory::place(at, bytes).is_none() {
        say::stop(&format!("a queued copy or fill of {bytes} bytes at {at:#x} meets memory that is gone"));
    }
}
