//! The same work on all threads of a pool for the same time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fp8flow_kernels::Parallel;
use fp8flow_kernels::parallel::for_each_of;

/// How long the first thread waits for the last, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Repeats `work` on each of `parts`, of which there are as many as threads, for so many seconds (at least once), and
/// returns how often all of them together did it a second.
///
/// None starts before all are there, so that what wakes them is not counted, and no thread has a core to itself because
/// another has not begun. Each is counted over its own time: one that is kept waiting by the system makes no other wait.
pub(crate) fn together<T: Send>(
    pool: &dyn Parallel,
    parts: impl ExactSizeIterator<Item = T> + Send,
    seconds: f64,
    work: impl Fn(&mut T) + Sync,
) -> f64 {
    let (missing, sum) = (AtomicUsize::new(parts.len()), Mutex::new(0.0));
    for_each_of(pool, parts.len(), parts, |mut part| {
        missing.fetch_sub(1, Ordering::Relaxed);
        let waiting = Instant::now();
        // Sleeping would cost as much as it should save: the others come within microseconds.
        while missing.load(Ordering::Relaxed) > 0 && waiting.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        let rate = repeat(seconds, || work(&mut part));
        *sum.lock().unwrap_or_else(PoisonError::into_inner) += rate;
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats `work` for so many seconds, and returns how often it was done a second.
fn repeat(seconds: f64, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut repeats = 0.0;
    loop {
        work();
        repeats += 1.0;
        let spent = began.elapsed().as_secs_f64();
        if spent >= seconds {
            return repeats / spent;
        }
    }
}

#[cfg(test)]
mod tests {
    use fp8flow_host::Pool;

    use super::*;

    #[test]
    fn rates_of_threads_add_up() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).expect("threads");
            let mut repeats = vec![0; threads];
            let rate = together(&pool, repeats.iter_mut(), 0.05, |repeats| {
                std::thread::sleep(Duration::from_millis(10));
                **repeats += 1;
            });
            assert!(repeats.iter().all(|repeats| (1..=5).contains(repeats)), "{repeats:?}");
            assert!(rate > 0.0 && rate <= 100.0 * threads as f64, "{rate}");
        }
    }
}
