//! The element types of activations, as f32 arithmetic sees them.

use fp8flow_kernels::{LANES, bf16};

/// An activation's element: widened exactly, rounded to nearest even once, at the store.
pub(crate) trait Element: Copy + Send + Sync + Default + 'static {
    /// The same number in f32.
    fn widen(self) -> f32;
    /// The nearest element; a NaN stays one.
    fn narrow(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // `half`'s conversion branches on NaN; this one is a select and vectorises.
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

/// Adds [`LANES`] partial sums in a fixed tree.
#[inline(always)]
pub(crate) fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ_i f(i)` for `i < n` with [`LANES`] partial sums: lane `i mod LANES`, ascending, then [`tree`].
#[inline(always)]
pub(crate) fn lane_sum(n: usize, mut f: impl FnMut(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane = f(i + j, *lane);
        }
        i += LANES;
    }
    for j in whole..n {
        lanes[j - whole] = f(j, lanes[j - whole]);
    }
    tree(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_to_bf16_rounds_to_nearest_even_and_keeps_nan() {
        let mut bits = 0_u32;
        loop {
            let x = f32::from_bits(bits);
            assert_eq!(<bf16 as Element>::narrow(x).to_bits(), bf16::from_f32(x).to_bits(), "{bits:#x}");
            let Some(next) = bits.checked_add(9973) else { break };
            bits = next;
        }
    }

    #[test]
    fn a_lane_sum_adds_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            assert_eq!(lane_sum(n, |i, acc| acc + i as f32), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
