//! The threads a kernel may use, borrowed from whoever calls it.
//!
//! Kernels own no threads: the engine lends its pool, a plugin passes on what the host lends.

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
