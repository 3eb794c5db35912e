//! `fp8flow gc`: makes room in a folder of runs.

use fp8flow_flow::gc::{Freed, collect};

use crate::args::GcArgs;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn gc(args: &GcArgs, screen: &Screen) -> Result<(), Failure> {
    let freed = collect(&args.runs, args.keep, args.dry_run)?;
    if screen.json() {
        let mut object = serde_json::json!(freed);
        object["dry_run"] = args.dry_run.into();
        screen.print(object.to_string());
    } else {
        screen.print(text(&freed, args.dry_run));
    }
    Ok(())
}

fn text(freed: &Freed, dry: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    let verb = if dry { "would be removed" } else { "removed" };
    lines.extend(freed.runs.iter().map(|run| format!("run {run} {verb}")));
    lines.extend(freed.in_use.iter().map(|run| format!("run {run} stays: a process works on it")));
    let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    lines.push(format!(
        "{}, {} and {} {verb}: {:.1} MB",
        count(freed.runs.len(), "run"),
        count(freed.results, "stored result"),
        count(freed.files, "stored file"),
        freed.bytes as f64 / 1e6
    ));
    lines.join("\n")
}
