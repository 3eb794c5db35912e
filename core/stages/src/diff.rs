//! `fp8flow diff`: two runs, finished or not, held against each other: parameters, environment, and where their bits part.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Record, written};
use fp8flow_train::{Comparison, TrainError, compare};
use serde::Serialize;
use serde_json::Value;

use crate::train::Task;

/// What differs between two runs.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Their ids.
    pub runs: [String; 2],
    /// Whether no bit differs of what both have.
    pub same: bool,
    /// Keys of the workflow with other values.
    pub parameters: Vec<Changed>,
    /// What is another of program, machine and plugin.
    pub environment: Vec<Changed>,
    /// The stages that both have.
    pub stages: Vec<StageDiff>,
}

/// A key with two values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The key, dotted as for `--set`.
    pub key: String,
    /// Its value in each; `null` where it is not there.
    pub values: [Value; 2],
}

/// A stage of both.
#[derive(Clone, Debug, Serialize)]
pub struct StageDiff {
    /// Its name.
    pub stage: String,
    /// Whether no bit differs.
    pub same: bool,
    /// Step by step, of a training stage.
    pub training: Option<Comparison>,
    /// Files with other bytes, of any other stage that is finished in both.
    pub files: Vec<PathBuf>,
}

/// Compares the runs in two folders.
pub fn diff(folders: [&Path; 2]) -> Result<Diff, TrainError> {
    let records = folders.map(Record::read);
    let plans = folders.map(plan);
    let runs = [0, 1].map(|i| {
        let name = folders[i].file_name().unwrap_or_default().to_string_lossy().into_owned();
        records[i].as_ref().map_or(name, |record| record.id.clone())
    });
    let stages = stages(&plans, folders)?;
    Ok(Diff {
        runs,
        same: stages.iter().all(|stage| stage.same),
        parameters: changed(plans.each_ref().map(parameters)),
        environment: changed(records.map(|record| record.as_ref().map(environment).unwrap_or_default())),
        stages,
    })
}

fn plan(folder: &Path) -> Value {
    fs::read(folder.join("plan.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn list(plan: &Value) -> &[Value] {
    plan["stages"].as_array().map_or(&[], Vec::as_slice)
}

/// Every key of a plan with its value.
fn parameters(plan: &Value) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (name, section) in plan["sections"].as_object().into_iter().flatten() {
        flatten(name, &section["params"], &mut keys);
    }
    for stage in list(plan) {
        let name = format!("stages.{}", stage["name"].as_str().unwrap_or_default());
        keys.insert(format!("{name}.uses"), stage["uses"].clone());
        flatten(&name, &stage["params"], &mut keys);
    }
    keys
}

/// What of the environment may matter.
fn environment(record: &Record) -> BTreeMap<String, Value> {
    let of = |value: &Value, key: &str| value.get(key).cloned();
    let keys = ["fp8flow", "numerics", "arch", "cpu", "isa", "threads", "device"];
    let mut found: BTreeMap<String, Value> =
        keys.into_iter().filter_map(|key| Some((key.to_owned(), of(&record.environment, key)?))).collect();
    found.extend(of(&record.binding, "plugin").map(|digest| ("plugin".to_owned(), digest)));
    found
}

fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                flatten(&format!("{prefix}.{key}"), value, keys);
            }
        }
        value => _ = keys.insert(prefix.to_owned(), value.clone()),
    }
}

fn changed([a, b]: [BTreeMap<String, Value>; 2]) -> Vec<Changed> {
    let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
    keys.sort();
    let value = |side: &BTreeMap<String, Value>, key| side.get(key).cloned().unwrap_or_default();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| Changed { key: key.clone(), values: [value(&a, key), value(&b, key)] })
        .collect()
}

fn stages(plans: &[Value; 2], folders: [&Path; 2]) -> Result<Vec<StageDiff>, TrainError> {
    let mut found = Vec::new();
    for stage in list(&plans[0]) {
        let (name, uses) =
            (stage["name"].as_str().unwrap_or_default(), stage["uses"].as_str().unwrap_or_default());
        if !list(&plans[1]).iter().any(|other| other["name"] == name) {
            continue;
        }
        let [a, b] = folders.map(|folder| folder.join(name));
        let (mut training, mut files) = (None, Vec::new());
        if Task::of(uses).is_some() {
            training = Some(compare([&a, &b])?);
        } else if let (Some(a), Some(b)) = (written(&a), written(&b)) {
            files = other_files([a, b]);
        }
        let same = files.is_empty() && training.as_ref().is_none_or(|training| training.parting.is_none());
        found.push(StageDiff { stage: name.to_owned(), same, training, files });
    }
    Ok(found)
}

/// Files that differ, or that one result has alone. Those outside the run go by their names: each run may have put them
/// elsewhere.
fn other_files(written: [Vec<(PathBuf, String)>; 2]) -> Vec<PathBuf> {
    let named = |(path, digest): (PathBuf, String)| {
        let name = if path.is_absolute() { path.file_name().map(PathBuf::from) } else { None };
        (name.unwrap_or(path).display().to_string(), Value::from(digest))
    };
    let maps = written.map(|files| files.into_iter().map(named).collect());
    changed(maps).into_iter().map(|changed| changed.key.into()).collect()
}
