//! Shared memory: static arrays are thread-local variables of the kernel's library, dynamic ones lie before a closed page.

use std::ffi::{c_int, c_void};

use crate::memory::{PAGE, reserve};
use crate::say;

const POISON: u8 = 0xFF;

/// The shared memory of the blocks that one OS thread runs.
pub(crate) struct Shared {
    /// The library's thread-local variables, on this OS thread.
    fixed: (usize, usize),
    base: usize,
    pages: usize,
    bytes: usize,
}

impl Shared {
    /// For the library one of whose thread-local variables lies at `slot`.
    pub(crate) fn new(slot: usize, bytes: usize) -> Self {
        // 1024-byte aligned, and a page more than is asked for, so that an overrun is told before it is a fault.
        let pages = bytes.div_ceil(PAGE);
        let base = reserve(pages).unwrap_or_else(|| say::stop("no room for shared memory"));
        let open = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: reserved just now.
        if pages > 0 && unsafe { libc::mprotect(base as *mut c_void, pages * PAGE, open) } != 0 {
            say::stop("mprotect of shared memory failed");
        }
        Self { fixed: thread_locals(slot), base, pages, bytes }
    }

    fn start(&self) -> usize {
        self.base + self.pages * PAGE - self.bytes.next_multiple_of(1024)
    }

    pub(crate) fn dynamic(&self) -> *mut u8 {
        self.start() as *mut u8
    }

    /// What a block finds there.
    pub(crate) fn poison(&mut self) {
        let (at, len) = self.fixed;
        // SAFETY: all of it is shared variables and the slot, which is written before a kernel reads it.
        unsafe { (at as *mut u8).write_bytes(POISON, len) };
        // SAFETY: our own pages.
        unsafe { self.dynamic().write_bytes(POISON, self.bytes.next_multiple_of(1024)) };
    }

    /// Whether a block wrote past what it had asked for, and how far.
    pub(crate) fn overrun(&self) -> Option<usize> {
        let rest = self.bytes..self.bytes.next_multiple_of(1024);
        // SAFETY: our own pages.
        let written = |i: &usize| unsafe { self.dynamic().add(*i).read() } != POISON;
        rest.filter(written).map(|i| i + 1 - self.bytes).next_back()
    }

    pub(crate) fn holds(&self, at: usize, bytes: usize) -> bool {
        let within = |start: usize, len: usize| at >= start && at + bytes <= start + len;
        within(self.fixed.0, self.fixed.1) || within(self.start(), self.bytes)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with the two closed pages around it.
        unsafe { libc::munmap((self.base - PAGE) as *mut c_void, (self.pages + 2) * PAGE) };
    }
}

/// Where the thread-local variables of the library lie that has one at `at`: address and length.
pub(crate) fn thread_locals(at: usize) -> (usize, usize) {
    struct Wanted {
        at: usize,
        found: (usize, usize),
    }
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        let (info, wanted) = (&*info, &mut *data.cast::<Wanted>());
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        let start = info.dlpi_tls_data as usize;
        let len =
            headers.iter().find(|header| header.p_type == libc::PT_TLS).map_or(0, |header| header.p_memsz);
        if start != 0 && wanted.at >= start && wanted.at < start + len as usize {
            wanted.found = (start, len as usize);
            return 1;
        }
        0
    }
    let mut wanted = Wanted { at, found: (0, 0) };
    // SAFETY: the function gets what is given here.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut wanted).cast()) };
    if wanted.found.1 == 0 {
        say::stop("a kernel's thread-local variables are not found");
    }
    wanted.found
}
