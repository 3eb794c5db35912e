//! The threads of the engine, lent to kernels and to plugins.

use std::sync::atomic::{AtomicUsize, Ordering};

use fp8flow_kernels::Parallel;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A fixed number of threads: the caller's own and `threads - 1` that wait for work.
///
/// The caller works too, so that a loop with few tasks costs few wake-ups. A loop inside a task runs on the task's thread
/// alone: the outer loop already keeps all threads busy.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    /// None for one thread.
    others: Option<ThreadPool>,
}

impl Pool {
    /// A pool of `threads` threads; 0 for as many as the machine offers.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        let build = |others| {
            let name = |i| format!("fp8flow-{}", i + 1);
            ThreadPoolBuilder::new().num_threads(others).thread_name(name).build()
        };
        let others = (threads > 1).then(|| build(threads - 1)).transpose()?;
        Ok(Self { threads, others })
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let helpers = (self.threads - 1).min(tasks.saturating_sub(1));
        let Some(others) = self.others.as_ref().filter(|others| helpers > 0 && !is_inside(others)) else {
            return (0..tasks).for_each(body);
        };
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
        others.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

fn is_inside(pool: &ThreadPool) -> bool {
    pool.current_thread_index().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads_and_tasks() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 63, 64, 65, 1000] {
                let runs: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, &|task| {
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{threads}, {tasks}");
            }
        }
    }

    #[test]
    fn loops_nest_and_may_start_on_several_threads_at_once() {
        let pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let add = |task| {
                        sum.fetch_add(task, Ordering::Relaxed);
                    };
                    pool.run(8, &|_| pool.run(8, &add));
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 8 * 28);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_leaves_the_pool_usable() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads).unwrap();
            let run = || pool.run(16, &|task| assert!(task != 11, "task {task}"));
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            let payload = caught.unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("task 11"));
            let count = AtomicUsize::new(0);
            pool.run(16, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 16);
        }
    }

    #[test]
    fn nothing_asked_for_is_what_the_machine_offers() {
        assert!(Pool::new(0).unwrap().threads() >= 1);
    }
}
