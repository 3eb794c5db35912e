//! The threads a kernel may use, borrowed from whoever calls it.
//!
//! Kernels own no threads: the engine lends its pool, a plugin passes on what the host lends.

use std::sync::{Mutex, PoisonError};

/// Runs independent tasks. Which thread runs which task never changes a result.
pub trait Parallel: Sync {
    /// How many threads may run at once; at least one. For splitting work, never for choosing a sum's order.
    fn threads(&self) -> usize;

    /// Runs `body(0)`, …, `body(tasks - 1)`, each once, in any order, and returns when all have ended.
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(body);
    }
}

/// Gives each item to one task, and returns when all have ended. A single item needs no other thread.
///
/// What a task may write comes to it as its item (a chunk of a slice, a [`Rectangle`](crate::Rectangle) of a matrix):
/// the compiler sees that no two tasks write the same.
pub fn for_each<I>(pool: &dyn Parallel, items: I, body: impl Fn(I::Item) + Sync)
where
    I: ExactSizeIterator + Send,
{
    for_each_of(pool, items.len(), items, body);
}

/// [`for_each`] where the number of items is known to the caller only; `tasks` is that number.
pub fn for_each_of<I>(pool: &dyn Parallel, tasks: usize, items: I, body: impl Fn(I::Item) + Sync)
where
    I: Iterator + Send,
{
    if tasks <= 1 || pool.threads() == 1 {
        return items.take(tasks).for_each(body);
    }
    let items = Mutex::new(items);
    pool.run(tasks, &|_| {
        // A panic of `next` itself would have ended the loop already.
        let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
        if let Some(item) = item {
            body(item);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every task twice, in descending order.
    struct Odd;

    impl Parallel for Odd {
        fn threads(&self) -> usize {
            2
        }

        fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..2 * tasks).rev().for_each(body);
        }
    }

    #[test]
    fn each_item_reaches_one_task_whatever_the_pool_does() {
        for pool in [&Serial as &dyn Parallel, &Odd] {
            let mut data = [0; 10];
            for_each(pool, data.chunks_mut(4).enumerate(), |(i, chunk)| {
                for x in chunk {
                    *x += i + 1;
                }
            });
            assert_eq!(data, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
        }
    }
}
