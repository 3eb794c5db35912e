//! Every check can fail: an honest backend passes them all, and each way of spoiling it is found by the check that
//! looks for it.

#![cfg(test)]

mod crashes;

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Backend as _, Options};
use fp8flow_testkit::{challenge, host};
use misbehaving::{FAULTS, Fault, Toy, check_for};

/// The checks that fail for a backend with this fault, each once. `learning`, which takes a moment, is tried where
/// `due`; `leak` sees the whole process, and has one of its own in `leaks.rs`.
fn failing<const FAULT: Fault>(due: &str) -> Vec<&'static str> {
    let chosen = |check: &str| check == due || !matches!(check, "leak" | "learning");
    let report = fp8flow_testkit::run_some::<Toy<FAULT>>(chosen);
    assert_eq!(report.passed(), report.failures().next().is_none(), "{report}");
    let mut failing: Vec<_> = report.failures().map(|outcome| outcome.check).collect();
    failing.dedup();
    println!("{report}");
    failing
}

#[test]
fn an_honest_backend_passes() {
    let report = fp8flow_testkit::run_some::<Toy<{ misbehaving::NONE }>>(|check| check != "leak");
    assert!(report.passed(), "{report}");
}

/// One test a fault: its name, the fault, and the checks that find it, or `..` where it shows nearly everywhere.
macro_rules! found {
    (@same $found:expr, ..) => {};
    (@same $found:expr, $checks:expr) => { assert_eq!($found, $checks) };
    ($($name:ident: $fault:ident => $checks:tt;)*) => {
        $(#[test]
        fn $name() {
            let due = check_for(misbehaving::$fault);
            let found = failing::<{ misbehaving::$fault }>(due);
            assert!(found.contains(&due), "{found:?}");
            found!(@same found, $checks);
        })*

        #[test]
        fn every_fault_that_leaves_the_process_alive_is_tried() {
            let tried = [$(misbehaving::$fault),*].len();
            assert_eq!(tried + ELSEWHERE.len(), FAULTS.len());
            assert!(ELSEWHERE.iter().all(|name| FAULTS.iter().any(|(fault, _)| fault == name)));
        }
    };
}

/// Faults that end the process, keep it forever or change it, which `fp8flow plugin test` finds in a process of their
/// own; and those of `leaks.rs`.
const ELSEWHERE: [&str; 9] = [
    "segfaults",
    "blocks",
    "writes_far",
    "leaks",
    "leaks_in_evaluations",
    "changes_directory",
    "keeps_a_thread",
    "prints",
    "forges",
];

found! {
    a_default_that_its_type_forbids: DEFAULT_OUT_OF_RANGE => ["schema"];
    an_unknown_recipe_that_is_taken: UNKNOWN_RECIPE_TAKEN => ["schema"];
    fp8_gemms_in_high_precision: DECIDES_AGAINST_ITSELF => ["decision"];
    a_description_that_changes: DESCRIBES_THE_MOMENT => ["description"];
    memory_that_shrinks_with_tokens: MEMORY_SHRINKS => ..;
    a_size_that_overflows: OVERFLOWS => ["huge"];
    a_panic_without_tokens: PANICS_WITHOUT_TOKENS => ..;
    a_byte_written_beside_a_region: WRITES_BESIDE => ..;
    a_byte_written_into_an_input: WRITES_INPUT => ..;
    results_made_from_scratch_memory: READS_SCRATCH => ["contents"];
    an_address_kept_beyond_the_call: HOLDS_A_POINTER => ["held"];
    a_panic_for_a_wrong_shape: TAKES_ANY_SHAPE => ["misuse"];
    strides_that_are_not_looked_at: IGNORES_STRIDES => ["layouts"];
    subnormal_numbers_flushed_after_a_call: LEAVES_FLUSH_TO_ZERO => ["environment"];
    subnormal_numbers_flushed_after_a_task: FLUSHES_IN_TASKS => ["environment"];
    ties_that_go_away_from_zero: ROUNDS_TIES_AWAY => ["rounding"];
    numbers_that_are_rounded_twice: ROUNDS_TWICE => ["rounding"];
    numbers_that_overflow_to_nan: OVERFLOWS_TO_NAN => ..;
    a_result_of_whichever_task_was_last: RACES => ..;
    a_loop_from_a_thread_of_its_own: LOOPS_ELSEWHERE => ["schedule"];
    a_static_buffer: SHARES_A_STATIC => ["threads"];
    results_that_depend_on_threads: COUNTS_THREADS => ["schedule", "determinism"];
    a_second_layer_that_spoils_the_shared_input: SPOILS_GROUP => ["group", "disorder"];
    a_recompute_that_records: RECOMPUTE_RECORDS => ["recompute", "order"];
    an_evaluation_that_records: EVAL_RECORDS => ["eval", "order"];
    a_backward_that_belongs_to_the_last_forward: REMEMBERS_THE_LAST_CALL => ["order"];
    a_panic_out_of_order: PANICS_OUT_OF_ORDER => ["disorder"];
    a_success_without_a_result: PRETENDS_WHEN_CANCELLED => ["cancelled"];
    state_that_is_not_restored: FORGETS_STATE => ["state", "repeats"];
    state_that_is_taken_unseen: TRUSTS_STATE => ["restore"];
    a_gemm_counted_that_did_not_run: COUNTS_WHAT_DID_NOT_RUN => ["counters"];
    zeros_that_are_not_counted: LYING_COUNTER => ["honesty"];
    high_precision_sold_as_fp8: SECRETLY_HIGH_PRECISION => ..;
    an_operand_that_is_not_transposed: TRANSPOSES_NOTHING => ..;
    a_scale_undone_along_the_wrong_axis: WRONG_AXIS => ..;
    numbers_that_are_cut_off: TRUNCATES => ["rounding"];
    a_constant_in_every_scale: ADDS_AN_EPSILON => ["invariance"];
    a_scale_that_is_never_made_again: STALE_SCALE => ["drift"];
    nan_that_becomes_zero: HIDES_NAN => ["nonfinite"];
    weights_that_stay_stale: KEEPS_STALE_WEIGHTS => ..;
    zero_rows_that_matter: NOISY_PADDING => ["tokens"];
    zero_rows_that_matter_to_gradients: NOISY_PADDING_OF_GRADIENTS => ["tokens"];
    sums_that_are_overwritten: OVERWRITES_SUMS => ["tokens"];
    a_gradient_that_changes_after_many_calls: WEARS_OUT => ["repeats"];
    an_output_that_changes_after_many_calls_of_anybody: COUNTS_IN_A_STATIC => ..;
    gradients_that_end: TIRES => ["learning"];
    a_primitive_that_forgets_a_scale: FORGETS_A_SCALE => ["primitives"];
    a_primitive_that_overwrites: PRIMITIVE_OVERWRITES => ["primitives"];
    shared_sums_that_are_overwritten: OVERWRITES_SHARED_SUMS => ["tokens"];
    results_that_telemetry_changes: MEASURES_WHAT_IT_CHANGES => ["telemetry"];
    a_gemm_without_tokens_that_is_counted: COUNTS_WITHOUT_TOKENS => ["counters"];
    recomputations_that_are_not_counted: FORGETS_RECOMPUTATIONS => ["counters"];
    counters_that_start_again: COUNTERS_START_AGAIN => ..;
    counters_that_stop: STOPS_COUNTING => ["learning"];
    lost_weights_that_are_not_counted: HIDES_LOST_WEIGHTS => ["honesty"];
    lost_gradients_that_are_not_counted: HIDES_LOST_GRADIENTS => ["honesty"];
    subnormal_codes_that_become_zero: LOSES_SUBNORMALS => ["rounding"];
    outputs_that_are_cut_off: TRUNCATES_OUTPUTS => ["outputs"];
    sums_in_bf16: ADDS_IN_BF16 => ["sums"];
    a_wrong_result_of_narrow_layers: WRONG_WHERE_NARROW => ..;
    an_option_that_is_not_described: DESCRIBES_TOO_LITTLE => ["identity"];
    an_address_in_the_state: SAVES_AN_ADDRESS => ..;
    subnormal_numbers_flushed_after_many_calls: FLUSHES_LATE => ..;
    an_alignment_that_nobody_promised: EXPECTS_ALIGNMENT => ["layouts"];
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
    assert_eq!(objection::<{ misbehaving::NONE }>(), None);
    let secret = objection::<{ misbehaving::SECRETLY_HIGH_PRECISION }>().unwrap();
    assert!(secret.contains("dx has") && secret.contains("not in FP8"), "{secret}");
    let wrong = objection::<{ misbehaving::TRANSPOSES_NOTHING }>().unwrap();
    assert!(wrong.contains("dW is wrong"), "{wrong}");
    let stale = objection::<{ misbehaving::KEEPS_STALE_WEIGHTS }>().unwrap();
    assert!(stale.contains("y is wrong"), "{stale}");
}
