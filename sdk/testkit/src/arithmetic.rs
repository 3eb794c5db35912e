//! Whether floating-point arithmetic on this thread is what the language promises: found out by doing some, and by
//! looking at the registers that control it.
#![allow(unsafe_code)]

use std::hint::black_box;

/// What is unusual about it, if anything.
pub(crate) fn deviation() -> Option<&'static str> {
    let tiny = f32::from_bits(1);
    // Half of the smallest normal number is subnormal; a subnormal times a large number is normal.
    let flushed = black_box(f32::MIN_POSITIVE) * black_box(0.5) == 0.0;
    let taken_as_zero = black_box(f32::MIN_POSITIVE / 4.0) * black_box(1e20) == 0.0;
    let one = black_box(1.0_f32);
    let (little, much) = (black_box(2.0_f32.powi(-25)), black_box(3.0 * 2.0_f32.powi(-25)));
    // Both lie between neighbours; a quarter of the way up, and three quarters.
    let stays = one + little == 1.0 && -one - little == -1.0;
    let goes = one + much > 1.0 && -one - much < -1.0;
    if flushed {
        Some("subnormal results are flushed to zero")
    } else if taken_as_zero || black_box(tiny) + black_box(0.0) == 0.0 {
        Some("subnormal operands are taken as zero")
    } else if !stays || !goes {
        Some("results are not rounded to nearest")
    } else if !controlled_as_usual() {
        Some("an exception of arithmetic is unmasked, or the x87 has another precision or rounding")
    } else {
        None
    }
}

/// Whether MXCSR, but for the flags that arithmetic sets, and the x87's control word are those of a new process.
#[cfg(target_arch = "x86_64")]
fn controlled_as_usual() -> bool {
    const FLAGS: u32 = 0x3f;
    let (mut mxcsr, mut x87) = (0_u32, 0_u16);
    // SAFETY: store the registers into the variables.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
        std::arch::asm!("fnstcw [{}]", in(reg) &raw mut x87, options(nostack, preserves_flags));
    }
    mxcsr & !FLAGS == 0x1f80 && x87 == 0x037f
}

#[cfg(not(target_arch = "x86_64"))]
fn controlled_as_usual() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_arithmetic_deviates_in_nothing() {
        assert_eq!(deviation(), None);
    }
}
