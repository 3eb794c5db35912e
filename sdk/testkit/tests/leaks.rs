//! What a backend never gives back is found. In a process of its own, for the whole process is what is measured.

#![cfg(test)]

use misbehaving::{LEAKS, NONE, Toy, check_for};

#[test]
fn memory_that_is_never_given_back_is_found() {
    let leak = |check: &str| check == check_for(LEAKS);
    let honest = fp8flow_testkit::run_some::<Toy<NONE>>(leak);
    assert!(honest.passed(), "{honest}");
    let report = fp8flow_testkit::run_some::<Toy<LEAKS>>(leak);
    let found: Vec<_> = report.failures().map(|outcome| outcome.check).collect();
    assert_eq!(found, ["leak"], "{report}");
    assert!(report.to_string().contains("leaves 32 bytes behind"), "{report}");
}
