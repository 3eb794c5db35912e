//! What the engine lends a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_kernels::{Isa, Parallel};
use fp8flow_sdk::{Host, HostServices, Level};

use crate::Pool;
use crate::callsite;

/// The services of a run on one rank.
#[derive(Clone, Debug)]
pub struct Services {
    isa: Isa,
    pool: Arc<Pool>,
    cancelled: Arc<AtomicBool>,
}

impl Services {
    /// Kernels with `isa` on the threads of `pool`; once `cancelled` is set, plugins may give up early.
    pub fn new(isa: Isa, pool: Arc<Pool>, cancelled: Arc<AtomicBool>) -> Self {
        Self { isa, pool, cancelled }
    }

    /// The services as plugins get them.
    pub fn host(self) -> Host {
        Host::new(Arc::new(self))
    }
}

impl HostServices for Services {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, body);
    }

    fn log_enabled(&self, level: Level, target: &str) -> bool {
        callsite::enabled(level, target)
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        callsite::write(level, target, message);
    }

    /// One rank: its maximum is everybody's.
    fn reduce_amax(&self, _values: &mut [f32]) {}

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
