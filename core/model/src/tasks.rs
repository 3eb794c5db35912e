//! Items, most often parts of tensors to write, shared out to the threads of a pool.

use std::sync::{Mutex, PoisonError};

use fp8flow_kernels::Parallel;

/// Runs `body` on each of `items`, in any order, and returns when all have ended.
pub(crate) fn for_each<T: Send>(pool: &dyn Parallel, items: Vec<T>, body: impl Fn(T) + Sync) {
    let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    pool.run(items.len(), &|task| {
        let item = items[task].lock().unwrap_or_else(PoisonError::into_inner).take();
        body(item.unwrap_or_else(|| unreachable!("a pool runs each task once")));
    });
}
