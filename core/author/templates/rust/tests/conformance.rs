//! The conformance suite that every backend must pass: each recipe, with its options at their ends.

use my_backend::Plugin;

#[test]
fn the_backend_conforms() {
    let report = fp8flow_testkit::run::<Plugin>();
    println!("{report}");
    assert!(report.passed(), "{report}");
}
