//! Elementary functions with the same bits on every machine.
//!
//! The C library picks its variants by CPU, so its `exp` may differ between two machines; these are made of exactly
//! rounded operations only (add, multiply, fused multiply-add, divide, square root), in a fixed order, and inline
//! into vectorised loops.

/// `eˣ` in f32, within 2 units in the last place; overflows to infinity, underflows to zero.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x64 = f64::from(x);
    let n = (x64 * std::f64::consts::LOG2_E).round_ties_even();
    let r = x64 - n * std::f64::consts::LN_2;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    (p * f64::from_bits(((n.clamp(-1000.0, 1000.0) as i64 + 1023) as u64) << 52)) as f32
}
