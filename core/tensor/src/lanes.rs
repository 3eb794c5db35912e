//! Sums along a row, in vectors and yet in one fixed order.

use fp8flow_kernels::LANES;

/// Adds [`LANES`] partial sums in a fixed tree.
#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ_i f(i)` for `i < n` with [`LANES`] partial sums: lane `i mod LANES`, ascending, then a tree.
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
    fn a_lane_sum_adds_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            assert_eq!(lane_sum(n, |i, acc| acc + i as f32), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
