//! Memory with a page before and a page behind that nobody may touch: whoever does ends the process there and then.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;

/// Whole pages, zeroed, between two that are out of bounds.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Of the page in front.
    mapping: NonNull<u8>,
    /// Of the pages within.
    len: usize,
}

// SAFETY: the memory belongs to this value alone, as that of a `Vec<u8>` does.
unsafe impl Send for Pages {}
// SAFETY: as above; it is written through `&mut` only.
unsafe impl Sync for Pages {}

impl Pages {
    /// At least `len` bytes.
    pub(crate) fn new(len: usize) -> rustix::io::Result<Self> {
        let page = page_size();
        let len = len.next_multiple_of(page).max(page);
        let all = len + 2 * page;
        let none = ProtFlags::empty();
        // SAFETY: a new mapping that the kernel places where nothing is.
        let mapping = unsafe { mmap_anonymous(std::ptr::null_mut(), all, none, MapFlags::PRIVATE)? };
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        let pages = Self { mapping, len };
        // SAFETY: the pages between the outer two of the mapping just made, which nobody else knows.
        unsafe { mprotect(pages.start().cast(), len, MprotectFlags::READ | MprotectFlags::WRITE)? };
        Ok(pages)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the mapping is longer than a page.
        unsafe { self.mapping.as_ptr().add(page_size()) }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes that can be read, zeroed by the kernel, and live as long as this value.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and written by nobody else, through `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the whole mapping as it was made; nothing borrowed from it outlives this value. Should the kernel
        // refuse, the memory stays mapped, which is harmless.
        let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.len + 2 * page_size()) };
    }
}
