//! Looks at an f32 tensor wherever it lies: what is on a card is looked at there, and the answer alone is fetched.

use fp8flow_cuda::Result;

use crate::{Tensor, cuda};

/// How many elements have these very bits.
pub fn count_bits(x: &Tensor, bits: u32) -> Result<usize> {
    if x.card().is_some() {
        return cuda::inspect::count_bits(x, bits);
    }
    Ok(x.f32().iter().filter(|x| x.to_bits() == bits).count())
}

/// Where in each `stretch` elements, of which the last stretch may have fewer, the largest magnitude lies: the first of
/// equals. A NaN is larger than nothing, and stays where it is a stretch's first element.
///
/// # Panics
/// If a stretch has no element, or more than a `u32` counts.
pub fn largest_of_stretches(x: &Tensor, stretch: usize) -> Result<Vec<usize>> {
    assert!(stretch > 0, "a stretch of no elements");
    if x.card().is_some() {
        return cuda::inspect::largest_of_stretches(x, stretch);
    }
    let largest =
        |x: &[f32]| (0..x.len()).fold(0, |most, at| if x[at].abs() > x[most].abs() { at } else { most });
    Ok(x.f32().chunks(stretch).enumerate().map(|(i, x)| i * stretch + largest(x)).collect())
}

/// The elements at `places`.
///
/// # Panics
/// If there is no such element.
pub fn elements_at(x: &Tensor, places: &[usize]) -> Result<Vec<f32>> {
    if x.card().is_some() {
        return cuda::inspect::elements_at(x, places);
    }
    let elements = x.f32();
    Ok(places.iter().map(|&place| elements[place]).collect())
}
