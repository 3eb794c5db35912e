//! `fp8flow plugin test` from outside: the shipped plugins as anybody's binaries, and plugins with a fault each.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{Bench, Ended};

/// A library that Cargo has built beside these tests.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().join(format!("lib{name}.so"))
}

/// What `plugin test` says of a library: how it ended, and each check.
fn tested(bench: &Bench, library: &Path) -> (Ended, Vec<Value>) {
    let ended = bench.fp8flow(&["plugin", "test", library.to_str().unwrap(), "--json"]);
    let checks = ended.out.lines().map(|line| serde_json::from_str(line).unwrap());
    let checks = checks.filter(|line: &Value| line["event"] == "check").collect();
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
