//! The suite every backend must pass.

use transformer_engine_hybrid::TransformerEngineHybrid;

#[test]
fn the_backend_conforms() {
    let report = fp8flow_testkit::run::<TransformerEngineHybrid>();
    println!("{report}");
    assert!(report.passed(), "{report}");
    // Three recipes with their defaults and with each option at its ends, fifteen checks each.
    assert!(report.outcomes.len() >= 2 + 3 * 15, "{} checks", report.outcomes.len());
}
