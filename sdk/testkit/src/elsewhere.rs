//! Layers that work on a card: what the suite asks of it there, what it leaves out, and how near two orders of a sum are.
//!
//! The order of a sum on a card is that of its tensor cores and of the algorithm that carries the product out. Both are
//! fixed for a product: the same call gives the same bits, and whatever compares equal calls asks for equal bits on a card
//! too. Another number of rows, another type of result, or a result that is added to, is another product, whose
//! algorithm may add in another order; checks that compare such results allow `ORDER` or `UNIT` there.
//!
//! No other bound needs to be another one. `rounding`, `honesty` and `nonfinite` look through the identity, at sums of one
//! term that is not zero: a product of two codes has at most 8 bits, of which tensor cores keep 14, and a NaN or an infinity
//! stays one. `sums` adds 4096 equal products: each of 128 steps cuts off at most 2⁻¹³ of the sum, 2 % in all, where a
//! quarter is allowed. `accuracy`, `drift`, `shapes`, `weights`, `disorder` and `learning` measure the noise of FP8, 20 to
//! 40 dB below the signal, where what tensor cores cut off is 60 dB and more below; the least for high precision, 50 dB, is
//! met by TF32 and by bf16 alike, which round each operand once. `invariance` multiplies by powers of two, which change
//! nothing of a sum but its exponent.

use crate::Failure;
use crate::values::{Activations, Values};

/// A card that the layers of a backend work on.
pub trait Elsewhere: Sync {
    /// What was found beside the results of calls since this was asked last: memory that was written beside what was
    /// lent, work that the card could not do.
    fn breach(&self) -> Option<Failure>;

    /// Whether nothing can be computed on the card any more, in this process.
    fn is_lost(&self) -> bool;

    /// Bytes of the card that are in use.
    fn bytes_in_use(&self) -> u64;
}

/// The checks that are not tried on a card, each with the reason.
pub const LEFT_OUT: [(&str, &str); 2] = [
    ("primitives", "`Kernels` has no face on a card: the suite without a card tries it"),
    (
        "fences",
        "a card has no pages that nobody may touch: `bounds` finds what is written beside memory, not what is read",
    ),
];

/// Whether `check` is tried on a card.
pub(crate) fn is_tried(check: &str) -> bool {
    LEFT_OUT.iter().all(|(left_out, _)| *left_out != check)
}

/// How far two sums in other orders may be apart, as a part of the largest result around them.
///
/// Before the tensor cores of Ada and Hopper add the products of an FP8 instruction to a sum, they align them to the largest
/// of all and keep 13 bits behind its first: each step of 32 terms cuts off up to 2⁻¹³ of what the sum is by then. The sums
/// that are compared have up to 256 terms, so 8 steps.
pub(crate) const ORDER: f32 = 8.0 / 8192.0;

/// Where results are rounded to bf16 afterwards: from one of its numbers to the next.
pub(crate) const UNIT: f32 = 1.0 / 128.0;

/// How far results of this type may be apart on a card, as a part of the largest around them.
pub(crate) fn apart(dtype: Activations) -> f32 {
    match dtype {
        Activations::Bf16 => UNIT,
        Activations::F32 => ORDER,
    }
}

/// Whether `found` is `expected`: to the bit, or on a card, row by row, as near as another order of sums is. Rows of
/// `found` that `expected` does not have are not looked at.
pub(crate) fn agree(on_card: bool, expected: &Values, found: &Values) -> bool {
    let dtype = expected.dtype();
    if !on_card {
        return found.bytes().starts_with(expected.bytes());
    }
    agree_in_numbers(on_card, dtype, expected.cols(), &expected.to_f32(), &found.to_f32())
}

/// [`agree`] for matrices with `cols` columns, of results in `dtype`.
pub(crate) fn agree_in_numbers(
    on_card: bool,
    dtype: Activations,
    cols: usize,
    expected: &[f32],
    found: &[f32],
) -> bool {
    if !on_card {
        return expected.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits());
    }
    let rows = expected.chunks(cols.max(1)).zip(found.chunks(cols.max(1)));
    rows.into_iter().all(|(expected, found)| {
        let most = apart(dtype) * largest(expected);
        // Written so that a NaN is no number that is near.
        expected.iter().zip(found).all(|(a, b)| (a - b).abs() <= most)
    })
}

/// The largest magnitude.
pub(crate) fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |most, x| most.max(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_card_a_row_may_be_off_by_a_part_of_its_own_largest_number() {
        let expected = Values::new(Activations::F32, 2, 2, &[1.0, 0.5, 100.0, 50.0]);
        let with = |x: f32, y: f32| Values::new(Activations::F32, 2, 2, &[1.0, x, 100.0, y]);
        assert!(agree(false, &expected, &expected) && agree(true, &expected, &expected));
        assert!(agree(true, &expected, &with(0.5 + 0.9 * ORDER, 50.0 + 90.0 * ORDER)));
        assert!(!agree(false, &expected, &with(0.5 + 0.9 * ORDER, 50.0)));
        assert!(!agree(true, &expected, &with(0.5 + 1.1 * ORDER, 50.0)), "beside 1, not beside 100");
        assert!(!agree(true, &expected, &with(0.5, f32::NAN)));
    }

    #[test]
    fn what_is_left_out_is_a_check_with_a_reason() {
        for (check, reason) in LEFT_OUT {
            assert!(crate::checks().any(|known| known == check) && !is_tried(check) && !reason.is_empty());
        }
        assert_eq!(
            crate::checks().filter(|check| is_tried(check)).count() + LEFT_OUT.len(),
            crate::checks().count()
        );
    }
}
