//! A stack of its own for each thread of a block, and the switch from one to another.

use std::sync::Mutex;

use crate::memory::{PAGE, reserve};
use crate::say;
use crate::state::locked;

/// A page below each stack stays closed.
const STACK_PAGES: usize = 32;
const STRIDE: usize = (STACK_PAGES + 1) * PAGE;
/// As many as a block may have threads.
const STACKS: usize = 1024;

/// Stacks for one block at a time.
pub(crate) struct Stacks {
    base: usize,
    open: usize,
}

/// Those that nobody works on: their pages are warm.
static IDLE: Mutex<Vec<Stacks>> = Mutex::new(Vec::new());

impl Stacks {
    pub(crate) fn take() -> Self {
        locked(&IDLE).pop().unwrap_or_else(|| {
            let Some(base) = reserve(STACKS * STRIDE / PAGE) else { say::stop("no room for stacks") };
            Self { base, open: 0 }
        })
    }

    pub(crate) fn give_back(self) {
        locked(&IDLE).push(self);
    }

    /// Opens the first `count`.
    pub(crate) fn open(&mut self, count: usize) {
        for i in self.open..count {
            let at = self.base + i * STRIDE + PAGE;
            // SAFETY: our own mapping.
            let refused = unsafe {
                libc::mprotect(at as *mut _, STACK_PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE)
            };
            if refused != 0 {
                say::stop("mprotect of a stack failed");
            }
        }
        self.open = self.open.max(count);
    }

    /// A stack pointer from which `switch` starts `start` with `argument`. Tops differ in their last bits, so that the
    /// stacks of a block do not all meet in the same lines of the cache.
    pub(crate) fn prepare(
        &self,
        i: usize,
        start: unsafe extern "C" fn(usize) -> !,
        argument: usize,
    ) -> usize {
        let top = self.base + (i + 1) * STRIDE - i % 16 * 256;
        let frame = [0, 0, argument, start as usize, 0, 0, begin as *const () as usize];
        // What `begin` finds is a multiple of 16, as the ABI wants it before a call.
        let sp = top - 16 - size_of_val(&frame);
        // SAFETY: within an open stack.
        unsafe { (sp as *mut [usize; 7]).write(frame) };
        sp
    }

    /// Whether the address is in the closed page below a stack.
    pub(crate) fn is_below(&self, at: usize) -> bool {
        at.checked_sub(self.base).is_some_and(|offset| offset < STACKS * STRIDE && offset % STRIDE < PAGE)
    }
}

/// Saves where we are in `from`, and goes on at `to`.
///
/// # Safety
/// `to` was written by `switch` or made by [`Stacks::prepare`], and nobody else goes on there.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn switch(from: *mut usize, to: usize) {
    std::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// The first code on a new stack: the frame has left the function in r12 and its argument in r13.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    std::arch::naked_asm!("mov rdi, r13", "call r12", "ud2")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe extern "C" fn switch(_: *mut usize, _: usize) {
    say::stop("kernels are emulated on x86-64 only");
}

#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn begin() {}
