//! `fp8flow plugin test --device cuda` from outside, on an emulated card.

use serde_json::Value;

use super::workflow::{HOPPER, command, emulated};
use crate::conformance::built;
use crate::program::{Bench, Ended};

/// The emulated card that takes least time.
const ADA: &str = "ada";

/// What the suite says of `library` on `cards`, the first of which is asked for: how it ended, each check, and the last
/// line.
fn tested(cards: &str, library: &str, fault: &str) -> (Ended, Vec<Value>, Value) {
    let (bench, library) = (Bench::new(), built(library));
    let arguments =
        ["plugin", "test", library.to_str().unwrap(), "--device", "cuda", "--json", "--limit", "300"];
    let mut command = command(&bench, Some(cards), &arguments);
    let ended: Ended = command.env("FP8FLOW_TEST_FAULT", fault).output().unwrap().into();
    let mut told: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = told.pop().unwrap();
    assert!(told.iter().all(|line| line["event"] == "check_finished"), "{told:#?}");
    (ended, told, last)
}

/// The checks that failed, each once, with what the first says.
fn failed(checks: &[Value]) -> Vec<(&str, &str)> {
    let failed = checks.iter().filter(|check| check["passed"] == false);
    failed.map(|check| (check["check"].as_str().unwrap(), check["message"].as_str().unwrap())).collect()
}

#[test]
fn a_plugin_for_cards_conforms_and_the_card_is_named() {
    if emulated().is_none() {
        return;
    }
    let (ended, checks, last) = tested(ADA, "straying", "none");
    assert_eq!(ended.code, Some(0), "{:#?}{}", failed(&checks), ended.err);
    assert_eq!(last["device"], "cuda:0 (NVIDIA GeForce RTX 4090, sm_89)");
    let left_out: Vec<_> = last["left_out"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(left_out, ["primitives", "fences"]);
    // Every other check ran, and no other.
    assert_eq!((checks.len(), &last["checks"]), (40, &40.into()));
    assert!(checks.iter().all(|check| check["check"] != "fences"), "{checks:#?}");
}

#[test]
fn a_card_that_is_lost_and_a_process_that_is_gone_cost_the_check_they_were_in() {
    if emulated().is_none() {
        return;
    }
    let (ended, checks, last) = tested(ADA, "straying", "ends_badly");
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert_eq!((checks.len(), &last["passed"]), (40, &false.into()), "{checks:#?}");
    let failed = failed(&checks);
    let names: Vec<_> = failed.iter().map(|(check, _)| *check).collect();
    assert_eq!(names, ["bounds", "held", "shapes", "surroundings"], "{failed:#?}");
    let says =
        |i: usize, words: &str| assert!(failed[i].1.contains(words), "no `{words}` in {:?}", failed[i]);
    says(0, "after Linear::forward the card says: cuStreamSynchronize failed: CUDA_ERROR_INVALID_HANDLE");
    says(1, "the process crashed with SIGABRT");
}

/// That the suite on `device` of `cards` is refused with `code` and `words`, with nothing tried.
fn refused(library: &str, cards: Option<&str>, device: &str, code: i32, words: &[&str]) {
    let (bench, library) = (Bench::new(), built(library));
    let arguments = ["plugin", "test", library.to_str().unwrap(), "--device", device];
    let ended: Ended = command(&bench, cards, &arguments).output().unwrap().into();
    assert_eq!(ended.code, Some(code), "{}", ended.all());
    for words in words {
        assert!(ended.err.contains(words), "no `{words}` in {}", ended.err);
    }
    assert!(!ended.out.contains("ok ") && !ended.out.contains("FAILED"), "{}", ended.out);
}

#[test]
fn what_cannot_be_tried_on_a_card_is_refused_with_what_to_do() {
    if emulated().is_none() {
        return;
    }
    let alone =
        ["plugin `pretending` runs on cpu alone, and `cuda` is a card", "export_backend!", "--device"];
    refused("pretending", Some(HOPPER), "cuda", 69, &alone);
    // Nobody looks for a card then.
    refused(
        "pretending",
        None,
        "cuda:1",
        69,
        &["plugin `pretending` runs on cpu alone, and `cuda:1` is a card"],
    );
    let no_card = ["the card cannot be used: there is no card 7: the driver shows 1", "fp8flow doctor"];
    refused("straying", Some(HOPPER), "cuda:7", 69, &no_card);
    refused("straying", None, "cuda", 69, &["the card cannot be used: libcuda.so.1", "fp8flow doctor"]);
    refused("straying", Some("ampere"), "cuda", 69, &["NVIDIA A100-SXM4-80GB has compute capability 8.0"]);
    refused("straying", Some("crash"), "cuda", 69, &["the card cannot be used: the process crashed with"]);
    refused("straying", Some(HOPPER), "cuda:x", 2, &["unknown device `cuda:x`", "cpu, cuda or cuda:N"]);
    refused("straying", Some(HOPPER), "auto", 2, &["unknown device `auto`"]);
}
