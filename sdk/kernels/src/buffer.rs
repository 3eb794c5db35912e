//! Working memory that a thread keeps from call to call, so that a steady state allocates nothing.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A cache line of floats: what vectors are aligned to.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Floats on loan from the thread, aligned to 64 bytes, with any values in them.
#[derive(Debug)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// Borrows `len` floats, which the thread keeps afterwards.
    pub fn take(len: usize) -> Self {
        let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let needed = len.div_ceil(16);
        if lines.len() < needed {
            // Not grown in place: what is in it is no longer wanted, nor is room for more than was asked for.
            drop(lines);
            lines = vec![Line([0.0; 16]); needed];
        }
        Self { lines, len }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        FREE.with_borrow_mut(|free| free.push(lines));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
