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

/// `Σ_i f(a_i, b_i)` over slices of one length, where `f` adds its terms to the sum it is given: [`LANES`] partial sums,
/// lane `i mod LANES`, ascending, then a tree.
///
/// # Panics
/// If a slice is longer or shorter than the first.
#[inline(always)]
pub(crate) fn lane_sum<A: Copy, const M: usize, const N: usize>(
    a: [&[A]; M],
    b: [&[f32]; N],
    f: impl Fn([A; M], [f32; N], f32) -> f32,
) -> f32 {
    let n = a[0].len();
    assert!(a.iter().all(|a| a.len() == n) && b.iter().all(|b| b.len() == n), "slices of one length");
    let mut lanes = [0.0; LANES];
    // Whole arrays, so that no index is checked in the inner loop: such a loop would not be made of vectors.
    let (a, b) = (a.map(<[A]>::as_chunks::<LANES>), b.map(<[f32]>::as_chunks::<LANES>));
    for i in 0..n / LANES {
        let (a, b) = (a.map(|(whole, _)| &whole[i]), b.map(|(whole, _)| &whole[i]));
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane = f(a.map(|a| a[j]), b.map(|b| b[j]), *lane);
        }
    }
    for (j, lane) in lanes.iter_mut().enumerate().take(n % LANES) {
        *lane = f(a.map(|(_, rest)| rest[j]), b.map(|(_, rest)| rest[j]), *lane);
    }
    tree(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_sum_adds_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let numbers: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let found = lane_sum([&numbers], [&numbers], |[x], [y], acc| x.mul_add(y, acc));
            assert_eq!(found, (0..n).map(|i| (i * i) as f32).sum());
        }
    }
}
