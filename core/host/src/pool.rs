//! The threads of the engine, lent to kernels and to plugins.
//!
//! A training step is thousands of short loops, one after the other. Threads that went to sleep between them would spend
//! a good part of a step being woken, so they stay awake for a moment and look for the next loop; they sleep when none
//! comes, and at once where there are more threads than processors.
#![allow(unsafe_code)]

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use fp8flow_kernels::Parallel;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::crash::Carried;

/// A fixed number of threads: the caller's own and `threads - 1` that wait for work.
///
/// The caller works too. A loop inside a task runs on the task's thread alone, because the outer loop already keeps all
/// threads busy; so does a loop that another thread starts meanwhile.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    /// None for one thread.
    crew: Option<Crew>,
}

/// The threads beside the caller's.
#[derive(Debug)]
struct Crew {
    post: Arc<Post>,
    /// Held while a loop runs.
    busy: Mutex<()>,
    threads: ThreadPool,
}

impl Pool {
    /// A pool of `threads` threads; 0 for as many as the machine offers.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { processors } else { threads };
        let crew = (threads > 1).then(|| Crew::new(threads - 1, threads <= processors)).transpose()?;
        Ok(Self { threads, crew })
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let crew = self.crew.as_ref().filter(|crew| tasks > 1 && !crew.is_inside());
        match crew.and_then(|crew| Some((crew, crew.claim()?))) {
            Some((crew, _busy)) => crew.post.run(tasks, body),
            None => (0..tasks).for_each(body),
        }
    }
}

impl Crew {
    fn new(threads: usize, awake: bool) -> Result<Self, ThreadPoolBuildError> {
        let name = |i| format!("fp8flow-{}", i + 1);
        let threads = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
        let post = Arc::new(Post::new(awake));
        let served = Arc::clone(&post);
        threads.spawn_broadcast(move |_| served.serve());
        Ok(Self { post, busy: Mutex::new(()), threads })
    }

    fn is_inside(&self) -> bool {
        self.threads.current_thread_index().is_some()
    }

    /// The right to run a loop, unless one runs: another thread's, or the one whose task this is.
    fn claim(&self) -> Option<MutexGuard<'_, ()>> {
        match self.busy.try_lock() {
            Ok(guard) => Some(guard),
            // A loop that panicked is over all the same.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.post.dismiss();
    }
}

/// A loop in progress, in the memory of the thread that runs it.
struct Loop<'a> {
    tasks: usize,
    next: AtomicUsize,
    body: &'a (dyn Fn(usize) + Sync),
    /// What the caller does meanwhile.
    call: Carried,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Loop<'_> {
    /// Takes tasks until there is none; after a panic there is none.
    fn work(&self) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= self.tasks {
                    break;
                }
                (self.body)(task);
            }
        }));
        if let Err(payload) = result {
            self.next.store(self.tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

/// Where a loop is posted, and who has joined it.
///
/// `state` holds, from the lowest bits up: how many threads are at work on the loop, whether it is open to more, whether
/// the crew is dismissed, and a number that each loop raises, so that a thread joins it once.
#[derive(Debug)]
struct Post {
    state: AtomicU64,
    /// The address of the open [`Loop`].
    job: AtomicUsize,
    /// Rounds of looking for the next loop before a thread sleeps.
    rounds: u32,
    asleep: Mutex<usize>,
    wake: Condvar,
}

const AT_WORK: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const DISMISSED: u64 = 1 << 17;
const LOOP: u64 = 1 << 18;

/// Some hundred microseconds.
const ROUNDS: u32 = 5_000;

impl Post {
    fn new(awake: bool) -> Self {
        Self {
            state: AtomicU64::new(0),
            job: AtomicUsize::new(0),
            rounds: if awake { ROUNDS } else { 0 },
            asleep: Mutex::new(0),
            wake: Condvar::new(),
        }
    }

    /// Runs a loop together with whoever is free; by one thread at a time.
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let (next, call) = (AtomicUsize::new(0), Carried::here());
        let job = Loop { tasks, next, body, call, panic: Mutex::new(None) };
        self.job.store(std::ptr::from_ref(&job).expose_provenance(), Ordering::Relaxed);
        // Release: whoever sees the loop open sees the address and the loop.
        self.state.fetch_add(LOOP | OPEN, Ordering::SeqCst);
        self.rouse();
        job.work();
        // From here on nobody joins; those at work are waited for, because the loop is on this stack.
        let mut left = self.state.fetch_sub(OPEN, Ordering::AcqRel);
        let mut round = 0_u32;
        while left & AT_WORK != 0 {
            if round < self.rounds {
                spin_loop();
            } else {
                std::thread::yield_now();
            }
            round = round.saturating_add(1);
            left = self.state.load(Ordering::Acquire);
        }
        let panic = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Wakes whoever sleeps.
    fn rouse(&self) {
        if *self.asleep() > 0 {
            self.wake.notify_all();
        }
    }

    fn asleep(&self) -> MutexGuard<'_, usize> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dismiss(&self) {
        self.state.fetch_or(DISMISSED, Ordering::SeqCst);
        self.rouse();
    }

    /// Joins loop after loop until the crew is dismissed.
    fn serve(&self) {
        let mut last = 0;
        while let Some(number) = self.await_loop(last) {
            last = number;
            let address = self.job.load(Ordering::Relaxed);
            // SAFETY: `await_loop` has counted this thread among those at work while the loop was open, and `run` keeps
            // the loop alive until that count, which is lowered below, is zero again.
            let job = unsafe { &*std::ptr::with_exposed_provenance::<Loop<'_>>(address) };
            job.call.during(|| job.work());
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Joins the next loop that is not `last` and gives its number; none once the crew is dismissed.
    fn await_loop(&self, last: u64) -> Option<u64> {
        let mut round = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & DISMISSED != 0 {
                return None;
            }
            if Self::is_new(state, last) {
                let joined =
                    self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if joined.is_ok() {
                    return Some(state / LOOP);
                }
            } else if round < self.rounds {
                round += 1;
                spin_loop();
            } else {
                let mut asleep = self.asleep();
                *asleep += 1;
                while !Self::is_new(self.state.load(Ordering::SeqCst), last) && !self.is_dismissed() {
                    asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                *asleep -= 1;
                round = 0;
            }
        }
    }

    fn is_new(state: u64, last: u64) -> bool {
        state & OPEN != 0 && state / LOOP != last
    }

    fn is_dismissed(&self) -> bool {
        self.state.load(Ordering::SeqCst) & DISMISSED != 0
    }
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
    fn loops_find_their_threads_awake_or_asleep() {
        // More threads than processors sleep at once; as many stay awake for less than the longest pause here.
        for threads in [2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            let count = AtomicUsize::new(0);
            for round in 0..2_000_u32 {
                if round.is_multiple_of(100) {
                    std::thread::sleep(std::time::Duration::from_micros(u64::from(round)));
                }
                pool.run(5, &|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            assert_eq!(count.into_inner(), 10_000);
        }
    }

    #[test]
    fn the_threads_of_a_pool_end_with_it() {
        let pool = Pool::new(3).unwrap();
        let post = Arc::downgrade(&pool.crew.as_ref().expect("threads").post);
        pool.run(3, &|_| {});
        drop(pool);
        for _ in 0..1_000 {
            if post.strong_count() == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("threads still serve");
    }

    #[test]
    fn nothing_asked_for_is_what_the_machine_offers() {
        assert!(Pool::new(0).unwrap().threads() >= 1);
    }
}
