//! The checks. Each takes a recipe, drives it as the engine would, and says what it measured or what is wrong.

mod conduct;
mod honesty;
mod layouts;
mod learning;
mod memory;
mod numerics;
mod order;
mod primitives;
mod protocol;
mod repeats;
mod rounding;
mod schema;
mod shapes;
mod special;
mod state;
mod surroundings;
mod threads;

use crate::failure::Failure;
use crate::subject::Subject;

/// What a check measured, or why it failed.
pub(crate) type Found = Result<String, Failure>;

/// A check of one recipe.
pub(crate) struct Check {
    /// As it stands in the report.
    pub(crate) name: &'static str,
    /// Whether it is worth its time with a recipe's default options only.
    pub(crate) defaults_only: bool,
    /// Carries it out.
    pub(crate) run: fn(&Subject<'_>) -> Found,
}

pub(crate) use primitives::cast_and_gemm_agree_with_arithmetic;
pub(crate) use schema::{descriptions_tell_apart, recipes_are_described};

const fn check(name: &'static str, run: fn(&Subject<'_>) -> Found) -> Check {
    Check { name, defaults_only: false, run }
}

const fn long(name: &'static str, run: fn(&Subject<'_>) -> Found) -> Check {
    Check { name, defaults_only: true, run }
}

/// Every check of a recipe, those first whose findings explain the others'.
pub(crate) const CHECKS: [Check; 39] = [
    check("decision", schema::decisions_are_sound),
    check("description", schema::description_is_stable),
    check("memory", memory::regions_grow_with_tokens),
    check("huge", memory::huge_layers_are_only_numbers),
    // Before any memory without pages around it is lent: a far write ends the process here, not later and elsewhere.
    check("fences", memory::nothing_far_from_the_regions_is_touched),
    check("bounds", memory::nothing_beside_the_regions_is_touched),
    check("contents", memory::what_is_lent_may_hold_anything),
    check("held", memory::nothing_is_held_beyond_a_call),
    check("misuse", memory::misuse_is_an_error),
    check("layouts", layouts::odd_layouts_are_refused_or_right),
    check("environment", conduct::arithmetic_is_left_as_it_was),
    check("schedule", threads::tasks_may_run_in_any_order),
    check("threads", threads::recipes_share_nothing),
    check("determinism", protocol::bits_depend_on_nothing_else),
    check("group", protocol::a_shared_input_changes_no_bit),
    check("recompute", protocol::recompute_repeats_the_forward),
    check("eval", protocol::evaluation_leaves_no_trace),
    check("order", order::every_legal_order_gives_the_same_bits),
    check("disorder", order::calls_out_of_order_do_no_harm),
    check("cancelled", conduct::a_cancelled_call_says_so),
    check("state", state::state_carries_over_a_restart),
    check("repeats", repeats::the_number_of_calls_does_not_matter),
    long("restore", state::foreign_state_does_no_harm),
    check("telemetry", protocol::telemetry_changes_no_bit),
    check("counters", protocol::counters_tell_what_ran),
    check("honesty", honesty::telemetry_is_what_shows),
    check("accuracy", numerics::noise_is_that_of_the_precision),
    check("rounding", rounding::numbers_go_to_the_nearest),
    check("outputs", rounding::results_are_rounded_once),
    check("sums", shapes::long_sums_keep_their_terms),
    check("shapes", shapes::what_is_taken_is_right),
    check("invariance", numerics::a_common_factor_comes_through),
    check("drift", numerics::data_that_grows_is_followed),
    check("nonfinite", special::what_is_not_finite_shows),
    check("weights", numerics::changed_weights_are_used),
    check("tokens", numerics::zero_rows_change_nothing),
    long("learning", learning::a_small_network_learns),
    long("leak", conduct::memory_does_not_grow),
    long("surroundings", surroundings::the_process_is_as_it_was),
];

/// Fails the check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::failure::Failure::Wrong(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
