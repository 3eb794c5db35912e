//! The engine as a plugin sees it: [`HostServices`] behind which the calls go out to the other side.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use abi_stable::std_types::RStr;
use fp8flow_kernels::Isa;

use super::objects::HostBox;
use super::wire::{self, Task, Tasks};
use crate::{HostServices, Level, Result};

/// The engine on the other side.
pub(super) struct Engine {
    object: HostBox,
    /// Asked for by every kernel, and always the same.
    isa: Isa,
}

impl Engine {
    pub(super) fn new(object: HostBox) -> Self {
        let isa = wire::isa(object.isa());
        Self { object, isa }
    }
}

impl HostServices for Engine {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn threads(&self) -> usize {
        self.object.threads().max(1)
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 {
            return (0..tasks).for_each(body);
        }
        let contained = Contained { body, stopped: AtomicBool::new(false), panic: Mutex::new(None) };
        let outcome = self.object.parallel_for(tasks, Tasks::new(&contained));
        let panic = contained.panic.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(payload) = panic {
            // Said by the panic hook already, on the thread where it happened.
            resume_unwind(payload);
        }
        expect("parallel_for", wire::receive(outcome));
    }

    fn log_enabled(&self, level: Level, target: &str) -> bool {
        self.object.log_enabled(wire::level_code(level), RStr::from(target))
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        self.object.log(wire::level_code(level), RStr::from(target), RStr::from(message));
    }

    fn reduce_amax(&self, values: &mut [f32]) {
        expect("reduce_amax", wire::receive(self.object.reduce_amax(values.into())));
    }

    fn cancelled(&self) -> bool {
        self.object.cancelled()
    }
}

/// A service that has no error of its own failed: the call it was asked in cannot go on. It unwinds to the guard of
/// that call, past the panic hook, for it is not the plugin's fault.
fn expect(service: &str, result: Result<()>) {
    if let Err(error) = result {
        resume_unwind(Box::new(format!("the engine's `{service}` failed: {error}")));
    }
}

/// The body of a parallel loop, on threads that must not see it panic.
struct Contained<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    stopped: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Task for Contained<'_> {
    fn run(&self, task: usize) {
        // The result is lost after a panic: the tasks that are left would be work for nothing.
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.body)(task))) {
            self.stopped.store(true, Ordering::Relaxed);
            match self.panic.lock() {
                Ok(mut first) if first.is_none() => *first = Some(payload),
                // Dropping a payload may panic.
                _ => std::mem::forget(payload),
            }
        }
    }
}
