//! `fp8flow plugin test` from outside: the shipped plugins as anybody's binaries, and plugins with a fault each.

use std::path::{Path, PathBuf};

use misbehaving::FAULTS;
use serde_json::Value;

use crate::program::{Bench, Ended};

/// A library that Cargo has built beside these tests.
pub(crate) fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().join(format!("lib{name}.so"))
}

/// What `plugin test` says of a library: how it ended, and each check.
fn tested(bench: &Bench, library: &Path) -> (Ended, Vec<Value>) {
    tested_with(bench, library, "none")
}

/// The same of a library with a fault of choice.
fn tested_with(bench: &Bench, library: &Path, fault: &str) -> (Ended, Vec<Value>) {
    // Slow machines need their time; only one who never comes back is not waited for so long.
    let limit = if fault == "blocks" { "10" } else { "300" };
    let arguments = ["plugin", "test", library.to_str().unwrap(), "--json", "--limit", limit];
    let ended: Ended = bench.command(&arguments).env("FP8FLOW_TEST_FAULT", fault).output().unwrap().into();
    let told = ended.out.lines().map(|line| serde_json::from_str(line).unwrap());
    let (checks, rest): (Vec<Value>, Vec<Value>) =
        told.partition(|line: &Value| line["event"] == "check_finished");
    assert!(matches!(&rest[..], [last] if last["event"] == "plugin_tested"), "{rest:#?}");
    (ended, checks)
}

#[test]
fn the_shipped_plugins_conform_as_anybodys_do() {
    for library in ["torchao_rowwise", "transformer_engine_hybrid"] {
        let bench = Bench::new();
        let (ended, checks) = tested(&bench, &built(library));
        let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
        assert_eq!(ended.code, Some(0), "{library}: {failed:#?}");
        assert!(checks.len() > 40, "{library}: {} checks", checks.len());
    }
}

#[test]
fn a_library_of_another_generation_of_the_sdk_fails_before_it_is_opened() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(built("torchao_rowwise")).unwrap();
    let (ours, theirs) = (concat!("\"sdk\":\"", env!("CARGO_PKG_VERSION"), "\""), "\"sdk\":\"0.9.0\"");
    let at = bytes.windows(ours.len()).position(|window| window == ours.as_bytes()).unwrap();
    bytes[at..at + theirs.len()].copy_from_slice(theirs.as_bytes());
    let (ended, checks) = tested(&bench, &bench.write("libother.so", bytes));
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert_eq!(checks.len(), 1);
    assert_eq!((&checks[0]["check"], &checks[0]["passed"]), (&"load".into(), &false.into()));
    let message = checks[0]["message"].as_str().unwrap();
    assert!(message.contains("fp8flow-sdk 0.9.0") && message.contains("rebuild the plugin"), "{message}");
}

#[test]
fn every_fault_is_found_from_outside_by_the_check_that_looks_for_it() {
    let (bench, library) = (Bench::new(), built("misbehaving"));
    let (ended, checks) = tested_with(&bench, &library, "none");
    assert_eq!(ended.code, Some(0), "{checks:#?}");
    assert!(FAULTS.len() > 40);
    let find = |&(fault, check): &(&str, &str)| {
        // A schema that contradicts itself does not come as far as the suite.
        let check = if fault == "default_out_of_range" { "load" } else { check };
        let (ended, checks) = tested_with(&bench, &library, fault);
        let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
        assert_eq!(ended.code, Some(1), "{fault}: {}", ended.all());
        assert!(failed.iter().any(|failed| failed["check"] == check), "{fault}, by {check}: {failed:#?}");
        // Whatever happened to the process it ran in, the others were done.
        let gave_up = checks.iter().any(|check| check["check"] == "the rest");
        assert!(checks.len() > 30 || gave_up || check == "load", "{fault}: {} checks", checks.len());
    };
    let (first, second) = FAULTS.split_at(FAULTS.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| first.iter().for_each(find));
        second.iter().for_each(find);
    });
}

#[test]
fn a_crash_and_a_silence_are_said_as_such() {
    let (bench, library) = (Bench::new(), built("misbehaving"));
    for (fault, says) in [
        ("segfaults", "crashed with SIGSEGV"),
        ("writes_far", "crashed with SIGSEGV"),
        ("blocks", "did not come back within 10 s"),
    ] {
        let (_, checks) = tested_with(&bench, &library, fault);
        let said = checks.iter().any(|check| check["message"].as_str().unwrap().contains(says));
        assert!(said, "{fault}: {checks:#?}");
    }
}
