//! A plugin's library against the conformance suite, in processes of its own.
//!
//! A plugin under test may crash, hang or exit: the suite runs in a child process, which says of every check that it
//! begins and how it ended. A check in which the child dies, or is silent for too long, has failed; the checks behind it
//! are another child's. So a report is always whole, and this process is never in danger.
//!
//! The child is this executable again: a program that uses this calls [`run_if_child`] before anything else.

mod child;
mod examined;

use std::time::Duration;

use fp8flow_host::Found;
use fp8flow_host::probe::{Heard, Probe, ProbeFailure};

pub use child::run_if_child;
pub use examined::{Examination, Examined};

use child::{Task, VARIABLE};
use examined::Line;

/// Has the C library fill memory that it gives out, and memory that is given back: what was never written, or is read
/// when it is gone, is found by the checks of results.
const PERTURB: &str = "MALLOC_PERTURB_";

/// Checks that do not come back before the plugin is given up: each costs the whole limit.
const SILENCES: usize = 3;

/// Runs the suite on the plugin `found`; each check is heard of as it ends. `limit` is how long one may take.
pub fn examine(found: &Found, limit: Duration, hear: &mut dyn FnMut(&Examined)) -> Examination {
    let mut checks: Vec<Examined> = Vec::new();
    let mut add = |checks: &mut Vec<Examined>, examined: Examined| {
        hear(&examined);
        checks.push(examined);
    };
    if let Err(mismatch) = found.compatible() {
        add(&mut checks, Examined::failed("load", "library", mismatch.to_string()));
        return Examination { checks };
    }
    let Some(probe) = Probe::this_executable() else {
        let message = "this program cannot try a plugin in a process of its own".to_owned();
        add(&mut checks, Examined::failed("load", "library", message));
        return Examination { checks };
    };
    let probe = probe.with_timeout(limit).with_variable(PERTURB, "165");
    let (mut silences, mut printed) = (0, None);
    loop {
        let mut begun: Option<(String, String)> = None;
        let mut refused = None;
        let task = Task { path: found.path.clone(), skip: checks.len() };
        let survived =
            probe.follow(VARIABLE, serde_json::json!(task).to_string(), &mut |heard| match heard {
                Heard::Printed(line) => drop(printed.get_or_insert(line)),
                Heard::Said(line) => match serde_json::from_str(&line) {
                    Ok(Line::Begun { check, subject }) => begun = Some((check, subject)),
                    Ok(Line::Ended(examined)) => {
                        begun = None;
                        add(&mut checks, examined);
                    }
                    Ok(Line::Refused { message }) => refused = Some(message),
                    Err(_) => {}
                },
            });
        let silent = matches!(survived, Err(ProbeFailure::TimedOut { .. }));
        let message = match (survived, refused) {
            (_, Some(message)) => message,
            (Ok(()), None) => {
                if let Some(line) = printed {
                    add(&mut checks, Examined::failed("output", "library", in_vain(&line)));
                }
                return Examination { checks };
            }
            (Err(failure), None) => in_words(&failure),
        };
        let Some((check, subject)) = begun else {
            let check = if checks.is_empty() { "load" } else { "exit" };
            add(&mut checks, Examined::failed(check, "library", message));
            return Examination { checks };
        };
        add(&mut checks, Examined::failed(&check, &subject, message));
        silences += usize::from(silent);
        if silences == SILENCES {
            let message = format!("not run, because {SILENCES} checks did not come back");
            add(&mut checks, Examined::failed("the rest", &subject, message));
            return Examination { checks };
        }
    }
}

/// What is wrong with printing a line.
fn in_vain(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    format!(
        "it printed `{line}`: the standard output may be read by another program, which expects JSON there; log \
         instead, in Rust with `tracing`, in C with `host->log`"
    )
}

/// What became of a child, as the result of the check that it was in.
fn in_words(failure: &ProbeFailure) -> String {
    match failure {
        ProbeFailure::Crashed { signal, output, .. } => {
            format!(
                "the process crashed with {signal}{output}; run the same in a debugger, or under valgrind"
            )
        }
        ProbeFailure::Exited { status, output, .. } => {
            format!("the process was ended ({status}){output}; a plugin returns errors, it never exits")
        }
        ProbeFailure::TimedOut { timeout, .. } => format!(
            "it did not come back within {} s; a plugin must not wait for anything but its tasks",
            timeout.as_secs_f32()
        ),
        ProbeFailure::Spawn(error) => format!("the process that should try it cannot be started: {error}"),
    }
}
