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
//! The page "What the suite tries" of the book lists the checks. The suite knows no recipe: what it asks holds for any arithmetic, with or without state. Whether a recipe gives
//! the numbers of a reference implementation is for the backend's own tests to show; [`Layers`] drives layers for
//! them, [`Reference`] is exact arithmetic, [`host()`] stands in for the engine. [`challenge()`] is the short form of the
//! suite for a recipe that is about to be used: milliseconds in which it shows that it computes in FP8.
//!
//! With the feature `cuda`, `run_on_card` runs the checks with the layers on an NVIDIA card.

mod arithmetic;
#[cfg(feature = "cuda")]
pub mod card;
pub mod challenge;
mod checks;
pub mod driver;
pub mod elsewhere;
pub mod failure;
pub mod host;
mod layout;
pub mod memory;
mod pages;
pub mod reference;
pub mod report;
pub mod step;
mod subject;
pub mod surroundings;
pub mod tested;
mod usage;
pub mod values;
mod watched;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fp8flow_sdk::Backend;

#[cfg(feature = "cuda")]
pub use card::{OnCard, run_on_card, run_some_on_card};
pub use challenge::{Evidence, challenge};
pub use driver::Layers;
pub use elsewhere::{Elsewhere, LEFT_OUT};
pub use failure::Failure;
pub use host::host;
pub use memory::{Fence, Guarded};
pub use reference::{Reference, snr_db};
pub use report::{Outcome, Report};
pub use step::{Gradients, Saved, Step};
pub use tested::{Linked, Started, Tested};
pub use values::{Activations, Values, normal};

/// The name of every check, in the order they run.
pub fn checks() -> impl Iterator<Item = &'static str> {
    OF_BACKENDS.into_iter().chain(checks::CHECKS.iter().map(|check| check.name))
}

/// The checks of a backend as a whole.
const OF_BACKENDS: [&str; 3] = ["schema", "primitives", "identity"];

/// Runs every check on every recipe of `B`. Starts the backend anew for every host it tries.
pub fn run<B: Backend>() -> Report {
    run_some::<B>(|_| true)
}

/// [`run`] with the checks only whose name is chosen.
pub fn run_some<B: Backend>(choose: impl Fn(&str) -> bool) -> Report {
    report_of(&Linked::<B>::default(), &|check, _| choose(check))
}

fn report_of(backend: &dyn Tested, choose: &dyn Fn(&str, &str) -> bool) -> Report {
    let mut report = Report::default();
    run_chosen(backend, &mut |check, subject| choose(check, subject), &mut |event| match event {
        Progress::Begun { .. } => {}
        Progress::Ended(outcome) => report.outcomes.push(outcome),
        Progress::Lost => report.outcomes.push(Outcome {
            check: "the rest",
            subject: "backend".to_owned(),
            result: Err(
                "not run, because nothing can be computed on the card any more in this process".to_owned()
            ),
        }),
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
    /// It has left the card so that nothing can be computed on it in this process; the checks behind it are another's.
    Lost,
}

/// [`run`] on any backend, without the first `skip` checks, each heard of as it begins and ends: what a backend that
/// crashed in one of them is asked again, in another process, is the rest.
pub fn run_on(backend: &dyn Tested, skip: usize, hear: &mut dyn FnMut(Progress)) {
    let mut done = 0;
    run_chosen(
        backend,
        &mut |_, _| {
            done += 1;
            done > skip
        },
        hear,
    );
}

fn run_chosen(
    backend: &dyn Tested,
    choose: &mut dyn FnMut(&str, &str) -> bool,
    hear: &mut dyn FnMut(Progress),
) {
    let elsewhere = backend.elsewhere();
    let lost = || elsewhere.is_some_and(Elsewhere::is_lost);
    let mut attempt = |check: &'static str, subject: &str, run: &(dyn Fn() -> checks::Found + Sync)| {
        let tried = elsewhere.is_none() || elsewhere::is_tried(check);
        if tried && !lost() && choose(check, subject) {
            hear(Progress::Begun { check, subject: subject.to_owned() });
            let mut outcome = outcome(check, subject, run);
            // Whatever else the check has found may follow from that.
            if let Some(breach) = elsewhere.and_then(Elsewhere::breach) {
                outcome.result = Err(breach.to_string());
            }
            hear(Progress::Ended(outcome));
            if lost() {
                hear(Progress::Lost);
            }
        }
    };
    let recipes = catch_unwind(AssertUnwindSafe(|| backend.recipes())).map_err(drop);
    let described = || match &recipes {
        Ok(Ok(recipes)) => checks::recipes_are_described(backend, recipes),
        Ok(Err(error)) => Err(Failure::Call { call: "Backend::recipes", error: error.clone() }),
        Err(()) => Err(Failure::Wrong("Backend::recipes panicked".into())),
    };
    let [schema, primitives, identity] = OF_BACKENDS;
    attempt(schema, "backend", &described);
    attempt(primitives, "backend", &|| checks::cast_and_gemm_agree_with_arithmetic(backend));
    let Ok(Ok(recipes)) = &recipes else { return };
    let subjects = subject::subjects(backend, recipes);
    attempt(identity, "backend", &|| checks::descriptions_tell_apart(&subjects));
    for subject in subjects {
        for check in checks::CHECKS.iter().filter(|check| subject.defaults || !check.defaults_only) {
            attempt(check.name, &subject.label, &|| (check.run)(&subject));
        }
    }
}

fn outcome(check: &'static str, subject: &str, run: &(dyn Fn() -> checks::Found + Sync)) -> Outcome {
    // On a thread of its own, which starts with ordinary arithmetic whatever the check before has left behind.
    let result = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(check.to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, run) {
            Ok(thread) => match thread.join() {
                Ok(found) => found.map_err(|failure| failure.to_string()),
                // A panic is a finding like any other; what it left behind belongs to this check alone.
                Err(panic) => Err(format!("panicked: {}; return an `Error` instead", text_of(&*panic))),
            },
            Err(error) => Err(format!("no thread could be started: {error}")),
        }
    });
    Outcome { check, subject: subject.to_owned(), result }
}

/// What the engine's main thread has.
const STACK: usize = 8 << 20;

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}
