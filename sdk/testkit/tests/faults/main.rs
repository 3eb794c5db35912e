//! Every check can fail: an honest backend passes them all, and each way of spoiling it is found by the check that
//! looks for it.

#![cfg(test)]

mod primitives;
mod toy;

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Backend as _, Options};
use fp8flow_testkit::{challenge, host};
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

/// What the challenge holds against a toy with this fault.
fn objection<const FAULT: Fault>() -> Option<String> {
    let host = host(Isa::best(), 2);
    let options = Options([("history".to_owned(), 1.into())].into_iter().collect());
    let recipe = Toy::<FAULT>::start(&host).unwrap().recipe(&host, "delayed", &options).unwrap();
    let evidence = challenge(recipe).unwrap();
    println!("{evidence}");
    evidence.verdict().err().map(|objection| objection.to_string())
}

#[test]
fn the_challenge_is_passed_by_fp8_and_by_nothing_else() {
    assert_eq!(objection::<{ toy::NONE }>(), None);
    let secret = objection::<{ toy::SECRETLY_HIGH_PRECISION }>().unwrap();
    assert!(secret.contains("dx has") && secret.contains("not in FP8"), "{secret}");
    let wrong = objection::<{ toy::TRANSPOSES_NOTHING }>().unwrap();
    assert!(wrong.contains("dW is wrong"), "{wrong}");
    let stale = objection::<{ toy::KEEPS_STALE_WEIGHTS }>().unwrap();
    assert!(stale.contains("y is wrong"), "{stale}");
}
