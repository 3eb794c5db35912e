//! Memory that is counted, so that what an input costs can be held against its size.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most memory for an input: `factor` times its size and `constant` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes for each byte of input.
    pub factor: usize,
    /// Bytes for any input: buffers, tables of names, error texts.
    pub constant: usize,
}

impl Bound {
    /// For an input of `bytes`.
    pub const fn most(self, bytes: usize) -> usize {
        self.factor * bytes + self.constant
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// More than this at once is refused, which ends the process with the size that was asked for.
const CEILING: usize = 1 << 30;

struct Counting;

impl Counting {
    fn grow(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: memory comes from the system's allocator and goes back to it with the layout it came with; the counters are
// no part of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > CEILING {
            return std::ptr::null_mut();
        }
        Self::grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > CEILING {
            return std::ptr::null_mut();
        }
        Self::grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most memory held at once during `work` beyond what was held before it; other threads count.
pub(crate) fn peak(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_held_at_once_is_counted_and_what_was_given_back_is_not() {
        let held = super::peak(|| {
            for _ in 0..4 {
                drop(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        });
        assert!((1 << 20..2 << 20).contains(&held), "{held}");
    }
}
