//! A host of a few lines: an instruction set, some threads, nothing else; or one that tries a backend's patience.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::kernels::philox::Philox;
use fp8flow_sdk::{Host, HostServices, Level};

/// A host that runs kernels with `isa` on `threads` threads.
pub fn host(isa: Isa, threads: usize) -> Host {
    host_with(isa, threads, Order::Ascending, None)
}

/// The same with an order of tasks, and somebody who looks on.
pub(crate) fn host_with(isa: Isa, threads: usize, order: Order, observer: Option<Arc<dyn Observer>>) -> Host {
    Host::new(Arc::new(LocalHost { isa, threads: threads.max(1), order, observer }))
}

/// In which order the tasks of a loop begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// From the first to the last.
    Ascending,
    /// From the last to the first.
    Reversed,
    /// In another order for each seed.
    Shuffled(u64),
    /// Shuffled, with pauses before tasks.
    Restless(u64),
}

impl Order {
    fn of(self, tasks: usize) -> Option<Vec<usize>> {
        match self {
            Self::Ascending => None,
            Self::Reversed => Some((0..tasks).rev().collect()),
            Self::Shuffled(seed) | Self::Restless(seed) => {
                Some(Philox::new(seed, "tasks").permutation(tasks as u64, tasks))
            }
        }
    }

    /// Lets other threads go first, now and then for long.
    fn pause(self, task: usize) {
        match self {
            Self::Restless(_) if task % 7 == 3 => std::thread::sleep(Duration::from_micros(20)),
            Self::Restless(_) => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// Somebody who sees what a backend asks of its host.
pub(crate) trait Observer: Send + Sync {
    /// A loop begins; `nested` inside a task of another.
    fn loop_begins(&self, _nested: bool) {}

    /// Runs a task.
    fn task(&self, run: &dyn Fn()) {
        run();
    }

    /// What the host says of cancellation.
    fn cancelled(&self) -> bool {
        false
    }
}

thread_local! {
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

struct LocalHost {
    isa: Isa,
    threads: usize,
    order: Order,
    observer: Option<Arc<dyn Observer>>,
}

impl HostServices for LocalHost {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let order = self.order.of(tasks);
        let nested = IN_TASK.get();
        if let Some(observer) = &self.observer {
            observer.loop_begins(nested);
        }
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= tasks {
                    break;
                }
                let task = order.as_ref().map_or(turn, |order| order[turn]);
                self.order.pause(task);
                let outer = IN_TASK.replace(true);
                match &self.observer {
                    Some(observer) => observer.task(&|| body(task)),
                    None => body(task),
                }
                IN_TASK.set(outer);
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
        self.observer.as_ref().is_some_and(|observer| observer.cancelled())
    }
}
