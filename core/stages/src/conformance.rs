//! A plugin's library against the conformance suite, in processes of its own.
//!
//! A plugin under test may crash, hang or exit: the suite runs in a child process, which says of every check that it
//! begins and how it ended. A check in which the child dies, or is silent for too long, has failed; the checks behind it
//! are another child's. So a report is always whole, and this process is never in danger. A card is opened by the child
//! alone; where a check has left it so that nothing can be computed on it, the checks behind are another child's, too.
//!
//! The child is this executable again: a program that uses this calls [`run_if_child`] before anything else.

mod child;
mod examined;
mod unfit;

use std::time::Duration;

use fp8flow_host::Found;
use fp8flow_host::probe::{Heard, Probe, ProbeFailure};

pub use child::run_if_child;
pub use examined::{Examination, Examined, LeftOut};
pub use unfit::Unfit;

use crate::device::{AUTO, CUDA, Place};
use child::{Task, VARIABLE};
use examined::Line;

/// Has the C library fill memory that it gives out, and memory that is given back: what was never written, or is read
/// when it is gone, is found by the checks of results.
const PERTURB: &str = "MALLOC_PERTURB_";

/// Checks that do not come back before the plugin is given up: each costs the whole limit.
const SILENCES: usize = 3;

/// What is heard of an examination while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// The card that the layers work on is open.
    Card(&'a str),
    /// A check has ended.
    Ended(&'a Examined),
}

/// Runs the suite on the plugin `found`, with its layers on the device that a workflow would call `device`. `limit` is how
/// long one check may take. An error if nothing can be tried there.
pub fn examine(
    found: &Found,
    device: &str,
    limit: Duration,
    hear: &mut dyn FnMut(News<'_>),
) -> Result<Examination, Unfit> {
    let card = card(found, device)?;
    let mut known = Examination { device: "cpu".into(), left_out: Vec::new(), checks: Vec::new() };
    if let Err(mismatch) = found.compatible() {
        known.add(Examined::failed("load", "library", mismatch.to_string()), hear);
        return Ok(known);
    }
    let Some(probe) = Probe::this_executable() else {
        let message = "this program cannot try a plugin in a process of its own".to_owned();
        known.add(Examined::failed("load", "library", message), hear);
        return Ok(known);
    };
    let probe = probe.with_timeout(limit).with_variable(PERTURB, "165");
    let (mut silences, mut printed) = (0, None);
    loop {
        let mut child = Child::default();
        let task = Task { path: found.path.clone(), skip: known.checks.len(), card };
        let survived =
            probe.follow(VARIABLE, serde_json::json!(task).to_string(), &mut |heard| match heard {
                Heard::Printed(line) => drop(printed.get_or_insert(line)),
                Heard::Said(line) => {
                    if let Ok(line) = serde_json::from_str(&line) {
                        child.say(line, &mut known, hear);
                    }
                }
            });
        if child.lost {
            continue;
        }
        // Nothing of the plugin was in the process before the card was open.
        let crashed = || survived.as_ref().err().filter(|_| card.is_some() && !child.has_card).map(in_words);
        if let Some(message) = child.no_card.clone().or_else(crashed) {
            if known.checks.is_empty() {
                return Err(Unfit::NoCard(message));
            }
            let message = format!("not run, because the card cannot be used any more: {message}");
            known.add(Examined::failed("the rest", "library", message), hear);
            return Ok(known);
        }
        let silent = matches!(survived, Err(ProbeFailure::TimedOut { .. }));
        let message = match (survived, child.refused) {
            (_, Some(message)) => message,
            (Ok(()), None) => {
                if let Some(line) = printed {
                    known.add(Examined::failed("output", "library", in_vain(&line)), hear);
                }
                return Ok(known);
            }
            (Err(failure), None) => in_words(&failure),
        };
        let Some((check, subject)) = child.begun else {
            let check = if known.checks.is_empty() { "load" } else { "exit" };
            known.add(Examined::failed(check, "library", message), hear);
            return Ok(known);
        };
        known.add(Examined::failed(&check, &subject, message), hear);
        silences += usize::from(silent);
        if silences == SILENCES {
            let message = format!("not run, because {SILENCES} checks did not come back");
            known.add(Examined::failed("the rest", &subject, message), hear);
            return Ok(known);
        }
    }
}

/// The number of the card that `device` names, if it names one; the plugin must say that it works on cards.
fn card(found: &Found, device: &str) -> Result<Option<usize>, Unfit> {
    let place = Place::parse(device).filter(|_| device != AUTO);
    let Place::Card(number) = place.ok_or_else(|| Unfit::Unknown(device.to_owned()))? else {
        return Ok(None);
    };
    let devices = &found.manifest.devices;
    if devices.iter().any(|device| device == CUDA) {
        return Ok(Some(number));
    }
    let (plugin, devices) = (found.manifest.name.clone(), devices.join(" and "));
    Err(Unfit::NotForCards { plugin, devices, device: device.to_owned() })
}

/// What one child has said.
#[derive(Default)]
struct Child {
    /// The check that it is in.
    begun: Option<(String, String)>,
    has_card: bool,
    lost: bool,
    refused: Option<String>,
    no_card: Option<String>,
}

impl Child {
    fn say(&mut self, line: Line, known: &mut Examination, hear: &mut dyn FnMut(News<'_>)) {
        match line {
            Line::Card { name, left_out } => {
                self.has_card = true;
                if known.device != name {
                    hear(News::Card(&name));
                    (known.device, known.left_out) = (name, left_out);
                }
            }
            Line::NoCard { message } => self.no_card = Some(message),
            Line::Refused { message } => self.refused = Some(message),
            Line::Begun { check, subject } => self.begun = Some((check, subject)),
            Line::Ended(examined) => {
                self.begun = None;
                known.add(examined, hear);
            }
            Line::Lost => self.lost = true,
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
