//! `fp8flow diff`: two runs held against each other.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Class, Record, runs};
use fp8flow_stages::diff::{self, Changed, Diff, StageDiff};
use fp8flow_stages::train_class;

use crate::args::DiffArgs;
use crate::failure::Failure;
use crate::screen::Screen;

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

pub(super) fn diff(args: &DiffArgs, screen: &Screen) -> Result<(), Failure> {
    let [a, b] = [&args.a, &args.b].map(|name| find(name, args.runs.as_deref()));
    let (a, b) = (a?, b?);
    let found = diff::diff([&a, &b]).map_err(|error| Failure::new(train_class(&error), error))?;
    screen.print(if screen.json() { serde_json::json!(found).to_string() } else { text(&found) });
    if found.same { Ok(()) } else { Err(Failure::Said(Class::Differ)) }
}

/// The folder of the run `name`: a folder, or an id among the runs in `folder` (`runs` by default).
pub(super) fn find(name: &str, folder: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = folder.unwrap_or(Path::new("runs"));
    let places = [PathBuf::from(name), folder.join(name)];
    if let Some(place) = places.into_iter().find(|place| Record::read(place).is_some()) {
        // `latest` is a link, and a run is known by the name of its folder.
        return Ok(place.canonicalize().unwrap_or(place));
    }
    let known: Vec<String> = runs(folder).into_iter().map(|(_, record)| record.id).collect();
    let help = match &known[..] {
        [] => format!(
            "There is none in {}; give the folder of the run, or of the runs with --runs.",
            folder.display()
        ),
        known => format!("In {} there are: {}.", folder.display(), known.join(", ")),
    };
    Err(Failure::new(Class::Invalid, format!("there is no run `{name}`")).help(help))
}

fn text(found: &Diff) -> String {
    let [a, b] = &found.runs;
    let mut out = format!("A  {a}\nB  {b}\n");
    changes(&mut out, "parameters", &found.parameters);
    changes(&mut out, "environment", &found.environment);
    let _ = writeln!(out, "{BOLD}bits{RESET}");
    for stage in &found.stages {
        self::stage(&mut out, stage);
    }
    out
}

fn changes(out: &mut String, title: &str, changes: &[Changed]) {
    if changes.is_empty() {
        let _ = writeln!(out, "{BOLD}{title}{RESET}  the same");
        return;
    }
    let _ = writeln!(out, "{BOLD}{title}{RESET}");
    for Changed { key, values: [a, b] } in changes {
        let _ = writeln!(out, "  {key}: {a} → {b}");
    }
}

fn stage(out: &mut String, stage: &StageDiff) {
    let name = &stage.stage;
    let Some(training) = &stage.training else {
        let said = match stage.files.len() {
            0 => "the same".to_owned(),
            n => {
                let shown: Vec<String> =
                    stage.files.iter().take(4).map(|file| file.display().to_string()).collect();
                let more = if n > 4 { format!(" and {} more", n - 4) } else { String::new() };
                format!("other bytes in {}{more}", shown.join(", "))
            }
        };
        let _ = writeln!(out, "  {name}: {said}");
        return;
    };
    let s = |n: u64| if n == 1 { "" } else { "s" };
    match &training.parting {
        None => {
            let n = training.compared;
            let _ = writeln!(out, "  {name}: the same bits for {n} step{}", s(n));
        }
        Some(parting) => {
            let before = parting.step.saturating_sub(1);
            let same = if before > 0 {
                format!("the same bits for {before} step{}, then ", s(before))
            } else {
                String::new()
            };
            let _ = writeln!(out, "  {name}: {same}{}", parting.words());
        }
    }
    for apart in &training.metrics {
        let _ = writeln!(
            out,
            "    {} differs from step {}, at most by {:.2e} of its value (step {})",
            apart.metric, apart.first, apart.most, apart.at
        );
    }
    let [a, b] = training.steps;
    if a != b {
        let _ = writeln!(out, "    A has {a} step{}, B {b}", s(a));
    }
}
