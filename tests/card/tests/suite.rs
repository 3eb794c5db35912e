//! The conformance suite with layers on a card: the shipped recipes pass it, and what a backend does wrong on a card
//! alone is found.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fp8flow_card_tests::{card, is_real};
use fp8flow_cuda::Card;
use fp8flow_sdk::Backend;
use fp8flow_testkit::{LEFT_OUT, Report, run_some_on_card};
use straying::{
    COUNTS_WHAT_DID_NOT_RUN, ENDS_BADLY, FAULTS, Fault, HOLDS_AN_ADDRESS, LOSES_A_TILE, NONE, Straying,
    WRITES_BESIDE, WRITES_INPUT,
};
use torchao_rowwise::TorchaoRowwise;
use transformer_engine_hybrid::TransformerEngineHybrid;

/// Checks that take longest, of which an emulated card has a minute or more of each; `fp8flow plugin test` on one tries them.
const LONG: [&str; 7] = ["leak", "environment", "order", "disorder", "repeats", "nonfinite", "learning"];

/// What every recipe is tried with; one of each backend with all that is not [`LONG`].
const SHORT: [&str; 8] =
    ["decision", "bounds", "held", "layouts", "counters", "accuracy", "rounding", "tokens"];

/// Runs the checks of a backend's recipes with their defaults; all of `whole` but long ones. None without a card.
fn tried<B: Backend>(whole: &str) -> Option<Report> {
    let card = card()?;
    let chosen = |check: &str, subject: &str| {
        let of_backend = subject == "backend" && check == "schema";
        let here = subject == whole && !LONG.contains(&check) || SHORT.contains(&check);
        is_real() || of_backend || here && !subject.contains(" with ")
    };
    let report = run_some_on_card::<B>(&card, chosen);
    println!("{report}");
    Some(report)
}

#[test]
fn the_recipes_of_torchao_conform_on_a_card() {
    let Some(report) = tried::<TorchaoRowwise>("rowwise") else { return };
    assert!(report.passed() && report.outcomes.len() > 40, "{report}");
}

#[test]
fn the_recipes_of_transformer_engine_conform_on_a_card() {
    let Some(report) = tried::<TransformerEngineHybrid>("delayed") else { return };
    assert!(report.passed() && report.outcomes.len() > 40, "{report}");
}

/// Those of `checks` that fail for a backend with this fault, and what the first of them says.
fn failing<const FAULT: Fault>(checks: &[&str]) -> Option<(Vec<&'static str>, String)> {
    let card = card()?;
    let report = run_some_on_card::<Straying<FAULT>>(&card, |check, _| checks.contains(&check));
    println!("{report}");
    let said =
        report.failures().next().map_or_else(String::new, |outcome| outcome.result.clone().unwrap_err());
    Some((report.failures().map(|outcome| outcome.check).collect(), said))
}

#[test]
fn what_a_backend_does_wrong_on_a_card_is_found_by_the_check_that_looks_for_it() {
    const CHECKS: [&str; 4] = ["bounds", "held", "counters", "accuracy"];
    let found = |fault: Fault, failing: Option<(Vec<&'static str>, String)>, words: &str| {
        let Some((found, said)) = failing else { return };
        let due = FAULTS.iter().find(|(_, of, _)| *of == fault).unwrap().2;
        assert!(found.contains(&due), "{due}: {found:?}");
        assert!(said.contains(words), "no `{words}` in {said}");
    };
    if let Some((found, said)) = failing::<NONE>(&CHECKS) {
        assert!(found.is_empty(), "{said}");
    }
    let beside = "Linear::forward wrote outside the group's forward region";
    found(WRITES_BESIDE, failing::<WRITES_BESIDE>(&CHECKS), beside);
    found(WRITES_INPUT, failing::<WRITES_INPUT>(&CHECKS), "Linear::forward wrote into its input `x`");
    found(LOSES_A_TILE, failing::<LOSES_A_TILE>(&CHECKS), "y at");
    found(
        COUNTS_WHAT_DID_NOT_RUN,
        failing::<COUNTS_WHAT_DID_NOT_RUN>(&CHECKS),
        "FP8 GEMMs (fprop, dgrad, wgrad)",
    );
    found(HOLDS_AN_ADDRESS, failing::<HOLDS_AN_ADDRESS>(&CHECKS), "keep no address beyond a call");
}

#[test]
fn what_cannot_be_tried_is_said() {
    let Some(card) = card() else { return };
    let report = run_some_on_card::<Straying<NONE>>(&card, |check, _| {
        matches!(check, "primitives" | "fences" | "memory")
    });
    assert_eq!(report.outcomes.iter().map(|outcome| outcome.check).collect::<Vec<_>>(), ["memory"]);
    assert_eq!(report.left_out, LEFT_OUT);
    let words = report.to_string();
    assert!(words.contains("left out fences: ") && words.contains("1 checks, 0 failed"), "{words}");
}

#[test]
fn a_backend_that_loses_the_card_ends_the_suite_with_a_failure() {
    if is_real() {
        println!(
            "skipped: whoever destroys the stream of a real card leaves it to the driver what comes then"
        );
        return;
    }
    let Some(card) = card() else { return };
    // A stream of its own, for others are at work.
    let card = Card::open(card.ordinal()).unwrap();
    let report =
        run_some_on_card::<Straying<ENDS_BADLY>>(&card, |check, _| matches!(check, "bounds" | "contents"));
    let checks: Vec<_> =
        report.outcomes.iter().map(|outcome| (outcome.check, outcome.result.is_ok())).collect();
    assert_eq!(checks, [("bounds", false), ("the rest", false)], "{report}");
}
