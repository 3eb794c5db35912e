//! The suite every backend must pass.

use torchao_rowwise::TorchaoRowwise;

#[test]
fn the_backend_conforms() {
    let report = fp8flow_testkit::run::<TorchaoRowwise>();
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcomes.len(), 2 + 6 * 15);
}
