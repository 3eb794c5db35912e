//! Faults in kernels, told with kernel, block and thread.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::{block, say};

const SIGNALS: [c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// Who handled these signals before.
static BEFORE: OnceLock<[libc::sigaction; 4]> = OnceLock::new();

/// Handles the signals from now on; what is no kernel's is handed on.
pub(crate) fn watch() {
    BEFORE.get_or_init(|| {
        SIGNALS.map(|signal| {
            // SAFETY: a handler with the signature that SA_SIGINFO asks for; all else in the structure may be zero.
            unsafe {
                let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                let mut before = MaybeUninit::zeroed();
                libc::sigaction(signal, &raw const action, before.as_mut_ptr());
                before.assume_init()
            }
        })
    });
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // The address says where; a processor that checks alignment itself says none.
    if let Some(what) = block::fault((*info).si_addr() as usize) {
        let why = match signal {
            libc::SIGILL => " (an index out of an array's bounds, or a misaligned access)",
            libc::SIGFPE => " (an integer division by zero)",
            _ => "",
        };
        say::stop(&format!("{what}{why}"));
    }
    let before = BEFORE.get().zip(SIGNALS.iter().position(|known| *known == signal)).map(|(all, i)| all[i]);
    if let Some(before) = before {
        // Back to whoever it was: the instruction faults again, and is theirs.
        libc::sigaction(signal, &raw const before, std::ptr::null_mut());
    }
}
