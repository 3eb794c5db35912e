//! The suite every backend must pass.

use std::collections::BTreeSet;

use torchao_rowwise::TorchaoRowwise;

#[test]
fn the_backend_conforms() {
    let report = fp8flow_testkit::run::<TorchaoRowwise>();
    println!("{report}");
    assert!(report.passed(), "{report}");
    // Three recipes with their defaults, and with their option at its other end.
    let subjects: BTreeSet<_> = report.outcomes.iter().map(|outcome| &outcome.subject).collect();
    assert_eq!(subjects.len(), 1 + 6, "{subjects:?}");
}
