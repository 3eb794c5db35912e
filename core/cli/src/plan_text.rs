//! A plan for people.

use std::fmt::Write as _;

use fp8flow_flow::{Plan, PlannedStage};
use serde_json::{Map, Value};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;91m";
const RESET: &str = "\x1b[0m";

/// Every section and stage, or `only` that stage: what it found out, and every value it will use.
pub(crate) fn text(plan: &Plan, only: Option<&str>) -> String {
    let mut out =
        format!("{BOLD}{}{RESET}: {} stages, from {}\n", plan.name, plan.stages.len(), plan.path.display());
    for section in plan.sections.iter().filter(|_| only.is_none()) {
        let _ = writeln!(out, "\n{BOLD}[{}]{RESET}", section.name);
        part(&mut out, &section.lines, section.params.json(), &[]);
    }
    let chosen = |stage: &PlannedStage| only.is_none_or(|name| stage.name == name);
    for (index, stage) in plan.stages.iter().enumerate().filter(|(_, stage)| chosen(stage)) {
        let _ = writeln!(out, "\n{BOLD}{}. {}{RESET}  {}", index + 1, stage.name, way(stage));
        let edges: Vec<&str> = stage.inputs.iter().map(|(edge, _)| edge.as_str()).collect();
        part(&mut out, &stage.lines, stage.params.json(), &edges);
    }
    let _ = writeln!(out, "\nidentity {}\nnothing was started", &plan.identity[..16]);
    out
}

/// `train.sft: model, tokens → model`.
fn way(stage: &PlannedStage) -> String {
    let from: Vec<&str> = stage.inputs.iter().map(|(_, name)| name.as_str()).collect();
    let arrow = if from.is_empty() { "→" } else { " →" };
    format!("{}: {}{arrow} {}", stage.uses, from.join(", "), stage.produces)
}

/// Lines, then values; edges are in the heading.
fn part(out: &mut String, lines: &[String], values: &Map<String, Value>, edges: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "{}", tinted(line).trim_end());
    }
    let mut pairs = Vec::new();
    flat("", values, &mut pairs);
    for (key, value) in pairs.into_iter().filter(|(key, _)| !edges.contains(&key.as_str())) {
        let _ = writeln!(out, "   {DIM}{key} = {value}{RESET}");
    }
}

/// A line with its first word in colour where that says FP8 or not.
fn tinted(line: &str) -> String {
    let colour = match line.split(' ').next() {
        Some("FP8") => GREEN,
        Some("high") => YELLOW,
        Some("!!") => return format!("   {RED}{line}{RESET}"),
        _ => return format!("   {line}"),
    };
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    format!("   {colour}{word}{RESET} {rest}")
}

fn flat(prefix: &str, values: &Map<String, Value>, pairs: &mut Vec<(String, String)>) {
    for (key, value) in values {
        match value {
            Value::Object(inner) => flat(&format!("{prefix}{key}."), inner, pairs),
            // What has no value is decided by the stage, and said in its lines.
            Value::Null => {}
            _ => pairs.push((format!("{prefix}{key}"), value.to_string())),
        }
    }
}
