//! One workflow: whether it is valid, and whether this machine has what it takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Error, Plan, PlannedSection, code};
use fp8flow_host::Search;
use fp8flow_host::machine::{Disk, Memory};
use serde_json::{Value, json};

use super::Question;
use super::plugins::measured;
use super::row::{Group, Row, Status, gb};
use super::trial::{Trial, trials};
use crate::card_room::CardRoom;
use crate::eval::EVAL;
use crate::forecast::{Forecast, Output};
use crate::layers_filter::LAYERS;
use crate::model::{self, MODEL};
use crate::{LayerPlan, RecipeChoice, backend, card_check, train};

/// Whether a workflow is refused because it wants a card.
pub(super) fn asks_for_cuda(plan: Option<Result<&Plan, &Error>>) -> bool {
    matches!(plan, Some(Err(Error::Workflow(findings))) if findings.has(code::NO_DEVICE))
}

/// The places of its own that a workflow looks for plugins in.
pub(super) fn places(plan: &Plan) -> Vec<PathBuf> {
    plan.section(backend::SECTION).map(|section| section.params.get("paths")).unwrap_or_default()
}

/// Everything that is wrong with a workflow.
pub(super) fn objections(error: &Error) -> Vec<Row> {
    let Error::Workflow(findings) = error else {
        return vec![row("plan", Status::Fail, error.to_string())];
    };
    findings.json().iter().map(finding).collect()
}

fn finding(finding: &Value) -> Row {
    let text = |key: &str| finding[key].as_str();
    let status = if text("level") == Some("warning") { Status::Warn } else { Status::Fail };
    let row = row("plan", status, text("message").unwrap_or_default()).facts(finding.clone());
    let row = match (text("file"), finding["line"].as_u64(), finding["column"].as_u64()) {
        (Some(file), Some(line), Some(column)) => row.place(format!("{file}:{line}:{column}")),
        _ => row,
    };
    match text("help") {
        Some(help) => row.advice(help),
        None => row,
    }
}

/// The rows of a workflow that is valid.
pub(super) fn rows(question: &Question<'_>, plan: &Plan, memory: Option<Memory>, runs: &Path) -> Vec<Row> {
    let stages = plan.stages.len();
    let valid = format!("{}: valid, {stages} stage{}", plan.name, if stages == 1 { "" } else { "s" });
    let mut rows = vec![row("plan", Status::Ok, valid)];
    rows.extend(plan.warnings.json().iter().map(finding));
    rows.extend(plan.section(backend::SECTION).map(|section| backend_row(question, plan, section)));
    rows.extend(layers(plan));
    let forecast = Forecast::of(plan);
    rows.extend(card_rows(question, plan));
    rows.extend(memory_row(&forecast, memory, CardRoom::look(question.engine).as_ref()));
    rows.extend(disks(&forecast.outputs(plan, runs)));
    rows
}

fn row(name: &str, status: Status, found: impl Into<String>) -> Row {
    Row::new(Group::Workflow, name, status, found)
}

/// The backend as configured, at work.
fn backend_row(question: &Question<'_>, plan: &Plan, section: &PlannedSection) -> Row {
    if let Some(why) = backend::fallback(section) {
        return row("backend", Status::Warn, format!("NO FP8: {why}"))
            .advice("Remove `fallback` to make this an error.");
    }
    if !backend::is_fp8(section) {
        return row("backend", Status::Ok, "none: no FP8 was asked for");
    }
    let choices = chosen(plan, section);
    let path = section.facts["path"].as_str().unwrap_or_default().to_owned();
    let plugin = section.facts["plugin"].as_str().unwrap_or_default();
    let found = Search::new(&question.engine.plugin_paths, &[]).find(&path);
    let tried = found.map_err(|error| error.to_string()).and_then(|found| trials(&found, choices, question));
    let row = |status, found: String| row("backend", status, found).place(path.clone());
    let problem = |trials: &Vec<Trial>| trials.iter().find_map(|trial| trial.problem.clone());
    match tried.and_then(|trials| problem(&trials).map_or(Ok(trials), Err)) {
        Err(problem) => row(Status::Fail, problem).advice("Take another recipe or plugin."),
        Ok(trials) => {
            let words: Vec<String> =
                trials.iter().map(|trial| format!("{}: {}", trial.recipe, measured(trial))).collect();
            let found = format!("{plugin}, {}", words.join("; "));
            row(Status::Ok, found).facts(json!({ "trials": trials }))
        }
    }
}

/// The recipes that layers of this plan run under, with their options.
fn chosen(plan: &Plan, section: &PlannedSection) -> Vec<RecipeChoice> {
    let mut choices: Vec<RecipeChoice> = Vec::new();
    for choice in plans(plan).into_iter().flat_map(|(_, layers)| layers.recipes) {
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    if choices.is_empty() { vec![backend::choice(section)] } else { choices }
}

/// The decisions of every stage that makes some.
fn plans(plan: &Plan) -> Vec<(&str, LayerPlan)> {
    let stages = plan.stages.iter().filter(|stage| stage.produces == LAYERS);
    stages
        .filter_map(|stage| {
            Some((stage.name.as_str(), serde_json::from_value(stage.fact("layers")?.clone()).ok()?))
        })
        .collect()
}

fn layers(plan: &Plan) -> Vec<Row> {
    let about = |(stage, layers): (&str, LayerPlan)| {
        let (fp8, all, share) = (layers.fp8().count(), layers.layers.len(), layers.fp8_share());
        let found = format!("{fp8} of {all} linear layers in FP8, {:.1} % of their FLOPs", 100.0 * share);
        row("layers", Status::Ok, found)
            .facts(json!({ "stage": stage, "fp8": fp8, "layers": all, "fp8_share": share }))
    };
    plans(plan).into_iter().map(about).collect()
}

/// What the card makes of every operation that the models of this workflow ask for; nothing without a card.
fn card_rows(question: &Question<'_>, plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for stage in
        plan.stages.iter().filter(|stage| [EVAL, train::SFT, train::PT].contains(&stage.uses.as_str()))
    {
        let model =
            stage.inputs.iter().find(|(edge, _)| edge == MODEL).and_then(|(_, name)| plan.stage(name));
        let Some(config) = model.and_then(model::planned_config) else { continue };
        let checked = card_check::operations(question.engine, &config, model::precision(&stage.params));
        let found = match checked {
            Ok(None) => continue,
            Ok(Some(checked)) => {
                row("card", Status::Ok, checked.line()).facts(json!({ "results": checked.results }))
            }
            Err(error) => {
                let row = row("card", Status::Fail, error.message);
                error.help.into_iter().fold(row, Row::advice)
            }
        };
        // Stages whose models have equal heads ask for the same.
        if !rows.contains(&found) {
            rows.push(found);
        }
    }
    rows
}

/// What the largest stage takes, against what there is.
fn memory_row(forecast: &Forecast, memory: Option<Memory>, card: Option<&CardRoom>) -> Option<Row> {
    let (stage, needs) = forecast.largest()?;
    let (certain, most) = (needs.memory.states, needs.peak);
    let at_most = if needs.exact { "" } else { "at most " };
    let tokens = needs.tokens.map(|tokens| {
        let working = gb(needs.memory.working());
        format!(" and {at_most}{working} for micro-batches of {tokens} tokens")
    });
    let host = memory.map(|memory| memory.available);
    let available = card.map(|card| card.free).or(host);
    let tell = |available: Option<u64>| available.map_or_else(|| "the system does not tell".into(), gb);
    let (on, here, there) = match card {
        None => (String::new(), String::new(), tell(host)),
        Some(card) => (
            format!(" on {}", card.name),
            format!(", and {} of the machine's memory", gb(needs.memory.resident())),
            format!("{} on the card, {} in the machine", gb(card.free), tell(host)),
        ),
    };
    let available = available.unwrap_or(u64::MAX);
    let crowded = card.is_some() && host.is_some_and(|host| host < needs.memory.resident());
    let states = match needs.gradients {
        None => "weights".into(),
        Some(1) => "masters, moments and gradient".into(),
        Some(n) => format!("masters, moments and {n} gradients"),
    };
    let (all, certain_part, tokens) = (gb(most), gb(certain), tokens.unwrap_or_default());
    let found = format!(
        "{stage}: {at_most}{all}{on}, of it {certain_part} of {states}{tokens}{here}; available: {there}"
    );
    let mut facts = json!({ "needs": needs, "memory": memory });
    if let Some(card) = card {
        facts["card"] = json!(card);
    }
    facts["needs"]["stage"] = json!(stage);
    let row = |status| row("memory", status, found.clone()).facts(facts.clone());
    let smaller = "Take a smaller `batch.micro`, a shorter `cutoff`, `recompute = \"block\"`, or `accumulate = \"sequential\"`.";
    Some(if certain > available || (needs.exact && most > available) {
        let least = needs.gradients.map_or(certain, |n| needs.memory.least_states(n));
        row(Status::Fail).advice(if least > available {
            let larger = if card.is_some() { "card" } else { "machine" };
            format!("Use a {larger} with more memory, or a smaller model.")
        } else {
            smaller.to_owned()
        })
    } else if crowded {
        row(Status::Fail).advice("Use a machine with more memory beside the card, or a smaller model.")
    } else if most > available {
        row(Status::Warn).advice(format!("Examples as long as they may be would not fit. {smaller}"))
    } else {
        row(Status::Ok)
    })
}

/// What is written to each file system, against what is free there.
fn disks(outputs: &[Output]) -> Vec<Row> {
    let mut disks: BTreeMap<u64, (Disk, Vec<&Output>)> = BTreeMap::new();
    let mut rows = Vec::new();
    for output in outputs {
        match Disk::of(&output.folder) {
            Ok(disk) => disks.entry(disk.device).or_insert_with(|| (disk, Vec::new())).1.push(output),
            Err(error) => rows.push(
                row("disk", Status::Warn, error.to_string()).place(output.folder.display().to_string()),
            ),
        }
    }
    for (disk, outputs) in disks.into_values() {
        let bytes: u64 = outputs.iter().map(|output| output.bytes).sum();
        let names: Vec<String> =
            outputs.iter().map(|output| format!("{} {}", gb(output.bytes), output.what)).collect();
        let found = format!("at most {}: {}; free: {}", gb(bytes), names.join(", "), gb(disk.free));
        let closed = outputs
            .iter()
            .find(|output| Disk::of(&output.folder).is_ok_and(|disk| !disk.writable))
            .map(|output| output.folder.display().to_string());
        let row = |status| {
            row("disk", status, found.clone())
                .place(closed.clone().unwrap_or_else(|| disk.folder.display().to_string()))
                .facts(json!({ "outputs": outputs, "disk": disk }))
        };
        rows.push(if closed.is_some() {
            row(Status::Fail).advice("It cannot be written to: name another folder.")
        } else if bytes > disk.free {
            row(Status::Fail)
                .advice("Make room, keep fewer checkpoints (`checkpoint.keep`), or name another folder.")
        } else {
            row(Status::Ok)
        });
    }
    rows
}
