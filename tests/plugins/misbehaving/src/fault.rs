//! The faults, each with the check that must find it.

use crate::Kind;

/// What is wrong with a [`crate::Toy`]. (Constant parameters cannot be enums.)
pub type Fault = u8;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $word:literal => $check:literal;)*) => {
        /// Nothing.
        pub const NONE: Fault = 0;
        $($(#[doc = $doc])+ pub const $name: Fault = $number;)*

        /// Every fault by name, with the check that must find it. Others may find it too.
        pub const FAULTS: &[(&str, &str)] = &[$(($word, $check)),*];

        /// The check that must find a fault.
        ///
        /// # Panics
        /// If there is no such fault.
        pub fn check_for(fault: Fault) -> &'static str {
            match fault {
                $($number => $check,)*
                _ => panic!("no fault {fault}"),
            }
        }

        pub(crate) fn kind(name: &str) -> Option<Kind> {
            match name {
                "none" => Some(Kind::of::<NONE>()),
                $($word => Some(Kind::of::<$name>()),)*
                _ => None,
            }
        }
    };
}

faults! {
    /// A default outside what its type allows.
    DEFAULT_OUT_OF_RANGE = 1, "default_out_of_range" => "schema";
    /// High precision, with FP8 GEMMs announced.
    DECIDES_AGAINST_ITSELF = 2, "decides_against_itself" => "decision";
    /// The description changes from step to step.
    DESCRIBES_THE_MOMENT = 3, "describes_the_moment" => "description";
    /// More tokens ask for less memory.
    MEMORY_SHRINKS = 4, "memory_shrinks" => "memory";
    /// No tokens at all are a panic.
    PANICS_WITHOUT_TOKENS = 5, "panics_without_tokens" => "bounds";
    /// Results are made from what was in scratch memory.
    READS_SCRATCH = 6, "reads_scratch" => "contents";
    /// Results depend on the number of threads.
    COUNTS_THREADS = 7, "counts_threads" => "determinism";
    /// The second layer of a group spoils the shared input.
    SPOILS_GROUP = 8, "spoils_group" => "group";
    /// A recomputed forward is recorded.
    RECOMPUTE_RECORDS = 9, "recompute_records" => "recompute";
    /// An evaluation is recorded.
    EVAL_RECORDS = 10, "eval_records" => "eval";
    /// State is given away, but not taken back.
    FORGETS_STATE = 11, "forgets_state" => "state";
    /// A GEMM is counted that did not run.
    COUNTS_WHAT_DID_NOT_RUN = 12, "counts_what_did_not_run" => "counters";
    /// One GEMM runs in high precision.
    SECRETLY_HIGH_PRECISION = 13, "secretly_high_precision" => "accuracy";
    /// An operand is not transposed.
    TRANSPOSES_NOTHING = 14, "transposes_nothing" => "accuracy";
    /// Weights are cast once and for all.
    KEEPS_STALE_WEIGHTS = 15, "keeps_stale_weights" => "weights";
    /// Rows of zeros change other rows.
    NOISY_PADDING = 16, "noisy_padding" => "tokens";
    /// Gradients are overwritten where they should be added.
    OVERWRITES_SUMS = 17, "overwrites_sums" => "tokens";
    /// A primitive forgets a scale.
    FORGETS_A_SCALE = 18, "forgets_a_scale" => "primitives";
    /// A recipe that does not exist is made all the same.
    UNKNOWN_RECIPE_TAKEN = 19, "unknown_recipe_taken" => "schema";
    /// Shapes are not looked at.
    TAKES_ANY_SHAPE = 20, "takes_any_shape" => "misuse";
    /// Scales of rows are undone along columns.
    WRONG_AXIS = 21, "wrong_axis" => "accuracy";
    /// Scales are made once and never again.
    STALE_SCALE = 22, "stale_scale" => "drift";
    /// Only half of what became zero is counted.
    LYING_COUNTER = 23, "lying_counter" => "honesty";
    /// The result depends on which task is the last to begin.
    RACES = 24, "races" => "schedule";
    /// A few bytes of every backward are never given back.
    LEAKS = 25, "leaks" => "leak";
    /// One byte is written before a region.
    WRITES_BESIDE = 26, "writes_beside" => "bounds";
    /// The master weight is written to, and put back too late.
    WRITES_INPUT = 27, "writes_input" => "bounds";
    /// Numbers are cut off instead of rounded.
    TRUNCATES = 28, "truncates" => "rounding";
    /// Subnormal numbers are zero after a call.
    LEAVES_FLUSH_TO_ZERO = 29, "leaves_flush_to_zero" => "environment";
    /// Backward reads the input of forward where it lay.
    HOLDS_A_POINTER = 30, "holds_a_pointer" => "held";
    /// What is not a number becomes zero.
    HIDES_NAN = 31, "hides_nan" => "nonfinite";
    /// A constant is added to every maximum.
    ADDS_AN_EPSILON = 32, "adds_an_epsilon" => "invariance";
    /// All recipes work in one static buffer.
    SHARES_A_STATIC = 33, "shares_a_static" => "threads";
    /// Strides are not looked at.
    IGNORES_STRIDES = 34, "ignores_strides" => "layouts";
    /// Sizes overflow, and panic.
    OVERFLOWS = 35, "overflows" => "huge";
    /// Backward takes the number of rows from whatever forward came last.
    REMEMBERS_THE_LAST_CALL = 36, "remembers_the_last_call" => "order";
    /// A backward before any forward is a panic.
    PANICS_OUT_OF_ORDER = 37, "panics_out_of_order" => "disorder";
    /// State is taken back unseen.
    TRUSTS_STATE = 38, "trusts_state" => "restore";
    /// A cancelled call is a success without a result.
    PRETENDS_WHEN_CANCELLED = 39, "pretends_when_cancelled" => "cancelled";
    /// After some dozen micro-batches there is no gradient any more.
    TIRES = 40, "tires" => "learning";
    /// Loops of the host are run from a thread of its own.
    LOOPS_ELSEWHERE = 41, "loops_elsewhere" => "schedule";
    /// A forward of a certain size ends the process. Only for the library.
    SEGFAULTS = 42, "segfaults" => "contents";
    /// A forward of a certain size never ends. Only for the library.
    BLOCKS = 43, "blocks" => "held";
    /// A forward of a certain size writes far beyond its output. Only for the library.
    WRITES_FAR = 44, "writes_far" => "fences";
    /// Subnormal numbers are zero on the host's threads after a loop.
    FLUSHES_IN_TASKS = 45, "flushes_in_tasks" => "environment";
    /// Numbers halfway between two go away from zero.
    ROUNDS_TIES_AWAY = 46, "rounds_ties_away" => "rounding";
    /// Numbers are rounded to bf16 before they are rounded to FP8.
    ROUNDS_TWICE = 47, "rounds_twice" => "rounding";
    /// What lies beyond the largest number of the format becomes NaN.
    OVERFLOWS_TO_NAN = 48, "overflows_to_nan" => "honesty";
    /// The gradient of the input is overwritten where it should be added.
    OVERWRITES_SHARED_SUMS = 49, "overwrites_shared_sums" => "tokens";
    /// Results are others where elements are counted.
    MEASURES_WHAT_IT_CHANGES = 50, "measures_what_it_changes" => "telemetry";
    /// A GEMM without tokens is counted.
    COUNTS_WITHOUT_TOKENS = 51, "counts_without_tokens" => "counters";
    /// What is recomputed is not counted.
    FORGETS_RECOMPUTATIONS = 52, "forgets_recomputations" => "counters";
    /// Counters that were told start again.
    COUNTERS_START_AGAIN = 53, "counters_start_again" => "counters";
    /// After fifty GEMMs no more are counted.
    STOPS_COUNTING = 54, "stops_counting" => "learning";
    /// Weights that became zero are not counted.
    HIDES_LOST_WEIGHTS = 55, "hides_lost_weights" => "honesty";
    /// Gradients that became zero are not counted.
    HIDES_LOST_GRADIENTS = 56, "hides_lost_gradients" => "honesty";
    /// Subnormal numbers of the format become zero.
    LOSES_SUBNORMALS = 57, "loses_subnormals" => "rounding";
    /// Outputs in bf16 are cut off instead of rounded.
    TRUNCATES_OUTPUTS = 58, "truncates_outputs" => "outputs";
    /// Long sums are made in bf16.
    ADDS_IN_BF16 = 59, "adds_in_bf16" => "sums";
    /// Layers with fewer outputs than inputs are wrong.
    WRONG_WHERE_NARROW = 60, "wrong_where_narrow" => "shapes";
    /// An option that changes bits is not described.
    DESCRIBES_TOO_LITTLE = 61, "describes_too_little" => "identity";
    /// An address is part of the state.
    SAVES_AN_ADDRESS = 62, "saves_an_address" => "state";
    /// A few bytes of every evaluation are never given back.
    LEAKS_IN_EVALUATIONS = 63, "leaks_in_evaluations" => "leak";
    /// The working directory is another. Only for the library.
    CHANGES_DIRECTORY = 64, "changes_directory" => "surroundings";
    /// A thread is started and never ends. Only for the library.
    KEEPS_A_THREAD = 65, "keeps_a_thread" => "surroundings";
    /// Something is printed. Only for the library.
    PRINTS = 66, "prints" => "output";
    /// Says itself that a check has passed, and ends the process as if all were well. Only for the library.
    FORGES = 67, "forges" => "contents";
    /// Subnormal numbers are zero from some call on.
    FLUSHES_LATE = 68, "flushes_late" => "environment";
    /// A primitive overwrites where it should add.
    PRIMITIVE_OVERWRITES = 69, "primitive_overwrites" => "primitives";
    /// Tensors are read as if they were aligned to more than their elements.
    EXPECTS_ALIGNMENT = 70, "expects_alignment" => "layouts";
    /// Rows of zeros change other rows of the gradient of the input.
    NOISY_PADDING_OF_GRADIENTS = 71, "noisy_padding_of_gradients" => "tokens";
    /// The gradient of the input is another from a layer's thirty-third backward on.
    WEARS_OUT = 72, "wears_out" => "repeats";
    /// Outputs are others from the thirty-third forward of the process on, whichever recipe's it is.
    COUNTS_IN_A_STATIC = 73, "counts_in_a_static" => "repeats";
}
