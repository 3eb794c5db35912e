//! How this thread's processor treats floating-point numbers, which any code on it can switch.
//!
//! Shared libraries that were linked with `-ffast-math` do so when they are opened: from then on subnormal results are
//! zero, on this thread and on all that it starts, and every bit that was promised may be another.

#![allow(unsafe_code)]

use std::arch::asm;

/// Rounding, flush-to-zero, denormals-are-zero: MXCSR without the flags that arithmetic itself sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arithmetic(u32);

const FLAGS: u32 = 0x3f;

impl Arithmetic {
    /// As it is on this thread.
    pub(crate) fn here() -> Self {
        let mut mxcsr = 0_u32;
        // SAFETY: stores the register into the variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags)) };
        Self(mxcsr & !FLAGS)
    }

    /// Makes it this on this thread.
    pub(crate) fn restore(self) {
        let mxcsr = &raw const self.0;
        // SAFETY: loads a value that the register had before.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) mxcsr, options(nostack, preserves_flags, readonly));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    const FLUSH_TO_ZERO: u32 = 1 << 15;

    #[test]
    fn what_was_switched_is_seen_and_switched_back() {
        let half = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        let before = Arithmetic::here();
        assert!(half() > 0.0 && Arithmetic::here() == before, "flags of results are not part of it");
        Arithmetic(before.0 | FLUSH_TO_ZERO).restore();
        let (flushed, switched) = (half(), Arithmetic::here());
        before.restore();
        assert!(flushed == 0.0 && switched != before);
        assert!(half() > 0.0 && Arithmetic::here() == before);
    }
}
