//! Handing disjoint parts of a slice to the tasks of a parallel loop.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

/// A slice cut into equal parts (the last may be shorter), each to be claimed by one task.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    part: usize,
    claimed: Box<[AtomicBool]>,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a part reaches exactly one claimer (see `claim`), as `&mut [T]` does when it is sent.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Cuts `data` into parts of `part` elements; a `part` of 0 makes one empty part.
    pub(crate) fn new(data: &'a mut [T], part: usize) -> Self {
        let count = if part == 0 { 1 } else { data.len().div_ceil(part) };
        let claimed = (0..count).map(|_| AtomicBool::new(false)).collect();
        Self { data: data.as_mut_ptr(), len: data.len(), part, claimed, lifetime: PhantomData }
    }

    /// How many parts there are.
    pub(crate) fn count(&self) -> usize {
        self.claimed.len()
    }

    /// Part `i`.
    ///
    /// # Panics
    /// If it was claimed before.
    pub(crate) fn claim(&self, i: usize) -> &'a mut [T] {
        assert!(!self.claimed[i].swap(true, Ordering::Relaxed), "part {i} is claimed twice");
        let start = i * self.part;
        let end = self.len.min(start + self.part);
        // SAFETY: `start..end` lies in the slice borrowed for 'a, parts do not overlap, and the flag lets each part
        // out once.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), end - start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_slice_without_overlap() {
        let mut data = [0; 10];
        let parts = Parts::new(&mut data, 4);
        assert_eq!(parts.count(), 3);
        for i in [2, 0, 1] {
            parts.claim(i).fill(i + 1);
        }
        assert_eq!(data, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    }

    #[test]
    #[should_panic(expected = "claimed twice")]
    fn a_part_goes_to_one_task() {
        let mut data = [0; 4];
        let parts = Parts::new(&mut data, 2);
        parts.claim(1);
        parts.claim(1);
    }
}
