//! What the engine lends a backend: threads, log, scratch memory, reductions, cancellation. A backend owns none of
//! these itself; that makes it testable with a host of ten lines.

use std::sync::Arc;

use fp8flow_kernels::{Cpu, Isa, Parallel};

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is doubtful.
    Warn,
    /// Something a user wants to know.
    Info,
    /// Something a developer wants to know.
    Debug,
    /// Everything else.
    Trace,
}

/// The services, as the engine implements them and as a backend receives them.
pub trait HostServices: Send + Sync {
    /// The instruction set to use.
    fn isa(&self) -> Isa;

    /// How many threads [`HostServices::parallel_for`] may use.
    fn threads(&self) -> usize;

    /// Runs `body(0..tasks)` on the engine's threads; see [`Parallel::run`].
    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync));

    /// Whether a line of `level` from `target` would be written.
    fn log_enabled(&self, level: Level, target: &str) -> bool;

    /// Writes a log line under the backend's name.
    fn log(&self, level: Level, target: &str, message: &str);

    /// Replaces each value by its maximum over all ranks of the run.
    fn reduce_amax(&self, values: &mut [f32]);

    /// Whether the run has been asked to stop.
    fn cancelled(&self) -> bool;
}

/// A handle on the services; cheap to clone, keep one wherever it is needed.
#[derive(Clone)]
pub struct Host(Arc<dyn HostServices>);

impl Host {
    /// A handle on `services`.
    pub fn new(services: Arc<dyn HostServices>) -> Self {
        Self(services)
    }

    /// The CPU to run kernels on: the engine's instruction set and threads.
    pub fn cpu(&self) -> Cpu<'_> {
        Cpu::new(self.0.isa(), self)
    }
}

impl std::ops::Deref for Host {
    type Target = dyn HostServices;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Parallel for Host {
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        self.0.parallel_for(tasks, body);
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("isa", &self.isa()).field("threads", &self.0.threads()).finish()
    }
}
