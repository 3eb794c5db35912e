//! Why each stage is run or not, for people.

use std::fmt::Write as _;

use fp8flow_flow::{Explained, Plan, State};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";

/// A line a stage, then one for all.
pub(crate) fn text(plan: &Plan, explained: &[Explained]) -> String {
    let mut out =
        format!("{BOLD}{}{RESET}: {} stages, from {}\n", plan.name, plan.stages.len(), plan.path.display());
    let width = explained.iter().map(|told| told.stage.len()).max().unwrap_or(0);
    for told in explained {
        let (colour, word) = match told.state {
            State::Done => (GREEN, "done"),
            State::Cached => (GREEN, "cached"),
            State::Resume => (YELLOW, "RESUME"),
            State::Run => (YELLOW, "RUN"),
        };
        let when = told.finished.as_ref().map_or(String::new(), |finished| format!(", {finished}"));
        let _ = writeln!(out, "  {:width$}  {colour}{word:6}{RESET}  {}{when}", told.stage, told.reason);
    }
    let count = |states: &[State]| explained.iter().filter(|told| states.contains(&told.state)).count();
    let _ = writeln!(
        out,
        "{} of {} stages need work; nothing was started",
        count(&[State::Resume, State::Run]),
        explained.len()
    );
    out
}
