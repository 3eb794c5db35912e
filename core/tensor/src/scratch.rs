//! Working memory of a task, kept by its thread from call to call, so that a steady state allocates nothing.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` zeroed floats to `body`.
pub(crate) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.clear();
    buffer.resize(len, 0.0);
    let result = body(&mut buffer);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
