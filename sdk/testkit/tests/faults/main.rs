//! Every check can fail: an honest backend passes them all, and each way of spoiling it is found by the check that
//! looks for it.

#![cfg(test)]

mod primitives;
mod toy;

use toy::{Fault, Toy};

/// The checks that fail for a backend with this fault, each once.
fn failing<const FAULT: Fault>() -> Vec<&'static str> {
    let report = fp8flow_testkit::run::<Toy<FAULT>>();
    assert_eq!(report.passed(), report.failures().next().is_none(), "{report}");
    let mut failing: Vec<_> = report.failures().map(|outcome| outcome.check).collect();
    failing.dedup();
    println!("{report}");
    failing
}

#[test]
fn an_honest_backend_passes() {
    assert_eq!(failing::<{ toy::NONE }>(), [""; 0]);
}

/// One test a fault: its name, the fault, the checks that must find it.
macro_rules! found {
    ($($name:ident: $fault:ident => $checks:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(failing::<{ toy::$fault }>(), $checks);
        })*
    };
}

found! {
    a_default_that_its_type_forbids: DEFAULT_OUT_OF_RANGE => ["schema"];
    an_unknown_recipe_that_is_taken: UNKNOWN_RECIPE_TAKEN => ["schema"];
    fp8_gemms_in_high_precision: DECIDES_AGAINST_ITSELF => ["decision"];
    a_description_that_changes: DESCRIBES_THE_MOMENT => ["description"];
    memory_that_shrinks_with_tokens: MEMORY_SHRINKS => ["memory"];
    a_panic_without_tokens: PANICS_WITHOUT_TOKENS => ["bounds", "tokens"];
    results_made_from_scratch_memory: READS_SCRATCH => ["contents"];
    a_panic_for_a_wrong_shape: TAKES_ANY_SHAPE => ["misuse"];
    results_that_depend_on_threads: COUNTS_THREADS => ["determinism"];
    a_second_layer_that_spoils_the_shared_input: SPOILS_GROUP => ["group"];
    a_recompute_that_records: RECOMPUTE_RECORDS => ["recompute"];
    an_evaluation_that_records: EVAL_RECORDS => ["eval"];
    state_that_is_not_restored: FORGETS_STATE => ["state"];
    a_gemm_counted_that_did_not_run: COUNTS_WHAT_DID_NOT_RUN => ["counters"];
    high_precision_sold_as_fp8: SECRETLY_HIGH_PRECISION => ["accuracy"];
    an_operand_that_is_not_transposed: TRANSPOSES_NOTHING => ["accuracy", "tokens"];
    weights_that_stay_stale: KEEPS_STALE_WEIGHTS => ["weights"];
    zero_rows_that_matter: NOISY_PADDING => ["tokens"];
    sums_that_are_overwritten: OVERWRITES_SUMS => ["tokens"];
    a_primitive_that_forgets_a_scale: FORGETS_A_SCALE => ["primitives"];
}
