//! The suite every backend must pass.

use std::collections::BTreeSet;

use transformer_engine_hybrid::TransformerEngineHybrid;

#[test]
fn the_backend_conforms() {
    let report = fp8flow_testkit::run::<TransformerEngineHybrid>();
    println!("{report}");
    assert!(report.passed(), "{report}");
    // Three recipes with their defaults, and with each of nine ends of options.
    let subjects: BTreeSet<_> = report.outcomes.iter().map(|outcome| &outcome.subject).collect();
    assert_eq!(subjects.len(), 1 + 12, "{subjects:?}");
}
