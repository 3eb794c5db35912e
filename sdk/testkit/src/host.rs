//! A host of a few lines: an instruction set, some threads, nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Host, HostServices, Level};

/// A host that runs kernels with `isa` on `threads` threads.
pub fn host(isa: Isa, threads: usize) -> Host {
    Host::new(Arc::new(LocalHost { isa, threads: threads.max(1) }))
}

#[derive(Debug)]
struct LocalHost {
    isa: Isa,
    threads: usize,
}

impl HostServices for LocalHost {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(tasks) {
                scope.spawn(work);
            }
            work();
        });
    }

    fn log_enabled(&self, level: Level, _target: &str) -> bool {
        level <= Level::Warn
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        eprintln!("{level:?} {target}: {message}");
    }

    /// One rank: its maximum is everybody's.
    fn reduce_amax(&self, _values: &mut [f32]) {}

    fn cancelled(&self) -> bool {
        false
    }
}
