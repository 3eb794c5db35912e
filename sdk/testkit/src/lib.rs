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
pub mod tested;
pub mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fp8flow_sdk::Backend;

pub use challenge::{Evidence, challenge};
pub use driver::{Failure, Gradients, Layers, Saved, Step};
pub use host::host;
pub use memory::Guarded;
pub use reference::{Reference, snr_db};
pub use report::{Outcome, Report};
pub use tested::{Linked, Started, Tested};
pub use values::{Activations, Values, normal};

/// Runs every check on every recipe of `B`. Starts the backend anew for every host it tries.
pub fn run<B: Backend>() -> Report {
    let mut report = Report::default();
    run_on(&Linked::<B>::default(), 0, &mut |event| {
        if let Progress::Ended(outcome) = event {
            report.outcomes.push(outcome);
        }
    });
    report
}

/// How far a run of the suite is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A check begins.
    Begun {
        /// Its name.
        check: &'static str,
        /// The recipe and its options, or `backend`.
        subject: String,
    },
    /// It is over.
    Ended(Outcome),
}

/// [`run`] on any backend, without the first `skip` checks, each heard of as it begins and ends: what a backend that
/// crashed in one of them is asked again, in another process, is the rest.
pub fn run_on(backend: &dyn Tested, skip: usize, hear: &mut dyn FnMut(Progress)) {
    let mut done = 0;
    let mut attempt = |check: &'static str, subject: &str, run: &dyn Fn() -> checks::Found| {
        done += 1;
        if done > skip {
            hear(Progress::Begun { check, subject: subject.to_owned() });
            hear(Progress::Ended(outcome(check, subject, run)));
        }
    };
    let recipes = catch_unwind(AssertUnwindSafe(|| backend.recipes()));
    let described = || match &recipes {
        Ok(Ok(recipes)) => checks::recipes_are_described(backend, recipes),
        Ok(Err(error)) => Err(Failure::Call { call: "Backend::recipes", error: error.clone() }),
        Err(_) => Err(Failure::Wrong("Backend::recipes panicked".into())),
    };
    attempt("schema", "backend", &described);
    attempt("primitives", "backend", &|| checks::cast_and_gemm_agree_with_arithmetic(backend));
    let Ok(Ok(recipes)) = &recipes else { return };
    for subject in subject::subjects(backend, recipes) {
        for (name, check) in checks::CHECKS {
            attempt(name, &subject.label, &|| check(&subject));
        }
    }
}

fn outcome(check: &'static str, subject: &str, run: &dyn Fn() -> checks::Found) -> Outcome {
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
