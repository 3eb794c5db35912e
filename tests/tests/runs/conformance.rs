//! `fp8flow plugin test` from outside: the shipped plugins as anybody's binaries, and plugins with a fault each.

use std::path::PathBuf;

use serde_json::Value;

use crate::program::{Bench, Ended};

/// A library that Cargo has built beside these tests.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().join(format!("lib{name}.so"))
}

/// What `plugin test` says of a library: how it ended, and each check.
fn tested(bench: &Bench, library: &str, more: &[&str]) -> (Ended, Vec<Value>) {
    let library = built(library);
    let arguments = [&["plugin", "test", library.to_str().unwrap(), "--json"], more].concat();
    let ended = bench.fp8flow(&arguments);
    let checks = ended.out.lines().map(|line| serde_json::from_str(line).unwrap());
    let checks = checks.filter(|line: &Value| line["event"] == "check").collect();
    (ended, checks)
}

#[test]
fn the_shipped_plugins_conform_as_anybodys_do() {
    for library in ["torchao_rowwise", "transformer_engine_hybrid"] {
        let bench = Bench::new();
        let (ended, checks) = tested(&bench, library, &[]);
        let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
        assert_eq!(ended.code, Some(0), "{library}: {failed:#?}");
        assert!(checks.len() > 40, "{library}: {} checks", checks.len());
    }
}
