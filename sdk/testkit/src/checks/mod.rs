//! The checks. Each takes a recipe, drives it as the engine would, and says what it measured or what is wrong.

mod memory;
mod numerics;
mod primitives;
mod protocol;
mod schema;

use crate::driver::Failure;
use crate::subject::Subject;

/// What a check measured, or why it failed.
pub(crate) type Found = Result<String, Failure>;

/// A check of one recipe.
pub(crate) type Check = (&'static str, fn(&Subject<'_>) -> Found);

pub(crate) use primitives::cast_and_gemm_agree_with_arithmetic;
pub(crate) use schema::recipes_are_described;

/// Every check of a recipe, with the name that stands in the report.
pub(crate) const CHECKS: [Check; 15] = [
    ("decision", schema::decisions_are_sound),
    ("description", schema::description_is_stable),
    ("memory", memory::regions_grow_with_tokens),
    ("bounds", memory::nothing_beside_the_regions_is_touched),
    ("contents", memory::what_is_lent_may_hold_anything),
    ("misuse", memory::misuse_is_an_error),
    ("determinism", protocol::bits_depend_on_nothing_else),
    ("group", protocol::a_shared_input_changes_no_bit),
    ("recompute", protocol::recompute_repeats_the_forward),
    ("eval", protocol::evaluation_leaves_no_trace),
    ("state", protocol::state_carries_over_a_restart),
    ("counters", protocol::counters_tell_what_ran),
    ("accuracy", numerics::noise_is_that_of_the_precision),
    ("weights", numerics::changed_weights_are_used),
    ("tokens", numerics::zero_rows_change_nothing),
];

/// Fails the check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::driver::Failure::Wrong(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
