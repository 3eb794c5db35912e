//! `fp8flow verify`: a finished run once more, and the bits of both held against each other.

use std::sync::Arc;

use fp8flow_flow::{Class, Difference, Event, Observer, Recorded};
use fp8flow_stages::verify::{Verified, What, verify as again};
use serde_json::json;

use super::diff::find;
use crate::args::{Common, VerifyArgs};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::human::Human;
use crate::screen::Screen;
use crate::signals;

pub(super) fn verify(common: &Common, args: VerifyArgs, screen: &Screen) -> Result<(), Failure> {
    let folder = find(&args.run, args.runs.as_deref())?;
    let machine = Machine::to_compute(common)?;
    let registry = fp8flow_stages::registry(&machine.engine);
    let recorded = Recorded::read(&folder, &registry, Machine::binding)?;
    signals::listen(&machine.cancel, screen, "nothing of the verification is kept")
        .map_err(|error| Failure::new(Class::Io, error))?;
    let observer: Arc<dyn Observer> = if screen.json() {
        let screen = screen.clone();
        Arc::new(move |event: &Event| screen.print(event.line()))
    } else {
        Arc::new(Human::new(screen.clone(), common.quiet))
    };
    let what = What { stage: args.stage, window: args.window };
    let verified = again(&machine.engine, &registry, &recorded, &what, observer, &machine.cancel)?;
    if screen.json() {
        let mut object = json!(verified);
        object["event"] = "run_verified".into();
        screen.print(object.to_string());
    } else {
        screen.print(text(&verified));
    }
    if verified.same { Ok(()) } else { Err(Failure::Said(Class::Differ)) }
}

fn text(verified: &Verified) -> String {
    let Verified { run, stages, window, differences, .. } = verified;
    let what = match (window, &stages[..]) {
        (Some((from, to)), _) => format!("steps {} to {to} of {run}", from + 1),
        (None, [stage]) => format!("{stage} of {run}"),
        (None, stages) => format!("{} stages of {run}", stages.len()),
    };
    if differences.is_empty() {
        return format!("\x1b[32mverified\x1b[0m: {what}: every bit is the same");
    }
    let lines: Vec<String> = differences.iter().map(line).collect();
    format!("\x1b[1;91mbits differ\x1b[0m: {what}\n{}", lines.join("\n"))
}

fn line(difference: &Difference) -> String {
    let Difference { stage, file, tensor, what, .. } = difference;
    let file = file.as_ref().map_or(String::new(), |file| format!(" {}:", file.display()));
    let tensor = tensor.as_ref().filter(|name| !what.contains(name.as_str()));
    let tensor = tensor.map_or(String::new(), |name| format!(", first in `{name}`"));
    format!("  {stage}:{file} {what}{tensor}")
}
