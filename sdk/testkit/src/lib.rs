//! The conformance suite that a backend must pass.
//!
//! [`run`] drives every recipe of a backend, with its defaults and with each option at its ends, through the protocol
//! of `fp8flow-sdk`, and reports check by check what it measured or what is wrong. In a test of the backend's crate:
//!
//! ```
//! fn conforms<MyBackend: fp8flow_sdk::Backend>() {
//!     let report = fp8flow_testkit::run::<MyBackend>();
//!     assert!(report.passed(), "{report}");
//! }
//! ```
//!
//! The suite knows no recipe: what it asks holds for any arithmetic, with or without state. Whether a recipe gives
//! the numbers of a reference implementation is for the backend's own tests to show; [`Layers`] drives layers for
//! them, [`Reference`] is exact arithmetic, [`host()`] stands in for the engine. [`challenge()`] is the short form of the
//! suite for a recipe that is about to be used: milliseconds in which it shows that it computes in FP8.

pub mod challenge;
mod checks;
pub mod driver;
pub mod host;
pub mod memory;
pub mod reference;
pub mod report;
mod subject;
pub mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fp8flow_sdk::Backend;

pub use challenge::{Evidence, challenge};
pub use driver::{Failure, Gradients, Layers, Saved, Step};
pub use host::host;
pub use memory::Guarded;
pub use reference::{Reference, snr_db};
pub use report::{Outcome, Report};
pub use values::{Activations, Values, normal};

/// Runs every check on every recipe of `B`. Starts the backend anew for every host it tries.
pub fn run<B: Backend>() -> Report {
    let mut report = Report::default();
    let recipes = B::recipes();
    report.outcomes.push(outcome("schema", "backend", || checks::recipes_are_described::<B>(&recipes)));
    report.outcomes.push(outcome("primitives", "backend", checks::cast_and_gemm_agree_with_arithmetic::<B>));
    if report.outcomes[0].result.is_ok() {
        for subject in subject::subjects::<B>(&recipes) {
            for (name, check) in checks::CHECKS {
                report.outcomes.push(outcome(name, &subject.label, || check(&subject)));
            }
        }
    }
    report
}

fn outcome(check: &'static str, subject: &str, run: impl FnOnce() -> checks::Found) -> Outcome {
    // A panic is a finding like any other; what it left behind belongs to this check alone.
    let result = catch_unwind(AssertUnwindSafe(run)).map_or_else(
        |panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
            Err(format!("panicked: {message}"))
        },
        |found| found.map_err(|failure| failure.to_string()),
    );
    Outcome { check, subject: subject.to_owned(), result }
}
