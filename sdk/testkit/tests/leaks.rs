//! What a backend never gives back is found. In a process of its own, for the whole process is what is measured.

#![cfg(test)]

use misbehaving::{Fault, LEAKS, LEAKS_IN_EVALUATIONS, NONE, Toy, check_for};

/// What `leak` finds, and no other check is asked for.
fn leak<const FAULT: Fault>() -> Option<String> {
    let report = fp8flow_testkit::run_some::<Toy<FAULT>>(|check| check == check_for(LEAKS));
    assert_eq!(report.outcomes.len(), 1, "{report}");
    (!report.passed()).then(|| report.to_string())
}

#[test]
fn memory_that_is_never_given_back_is_found() {
    assert_eq!(leak::<NONE>(), None);
    for found in [leak::<LEAKS>(), leak::<LEAKS_IN_EVALUATIONS>()] {
        assert!(found.is_some_and(|found| found.contains("bytes behind")));
    }
}
