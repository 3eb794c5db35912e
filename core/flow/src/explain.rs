//! What a run would do with each stage, and why; nothing is started and nothing written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::begun::{self, Begun};
use crate::cache::Cache;
use crate::changes::Change;
use crate::manifest::Manifest;
use crate::plan::PlannedStage;
use crate::store::Store;
use crate::{Error, Extent, Plan, Registry, RunOptions, run};

/// What a run would do with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing: the run that goes on has its result.
    Done,
    /// Nothing: another run has made its result, and it is stored.
    Cached,
    /// It was begun in the run that goes on, and goes on from what is there.
    Resume,
    /// All of it.
    Run,
}

/// A stage, and why it is run or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// Its name.
    pub stage: String,
    /// What a run would do with it.
    pub state: State,
    /// The run that made the result, or that goes on.
    pub run: Option<String>,
    /// When the result was made.
    pub finished: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// What has changed since the nearest result that is stored.
    pub changes: Vec<Change>,
}

/// Why a stage is run whose results serve no other run.
pub(crate) const NO_FUNCTION: &str = "its result is never taken from another run";

/// Says for every stage of `plan` what [`crate::Run::execute`] with these options would do with it.
pub fn explain(plan: &Plan, registry: &Registry, options: &RunOptions) -> Result<Vec<Explained>, Error> {
    let runs = run::folder_of_runs(plan, options)?;
    let store = Store::of(&runs);
    let cache = Cache { store, plan, registry, binding: &options.binding };
    let unfinished =
        if options.fresh { None } else { run::unfinished(plan, &runs, &options.binding, |_| {}) };
    let mut results: BTreeMap<&str, String> = BTreeMap::new();
    let mut explained = Vec::new();
    for stage in &plan.stages {
        let inputs = stage.inputs.iter().filter_map(|(edge, name)| {
            results.get(name.as_str()).map(|result| (edge.clone(), result.clone()))
        });
        let begun = Begun::new(plan, registry, &options.binding, stage, inputs.collect());
        let waits: Vec<(&str, &str)> = stage
            .inputs
            .iter()
            .filter(|(_, name)| !results.contains_key(name.as_str()))
            .map(|(edge, name)| (edge.as_str(), name.as_str()))
            .collect();
        let (told, result) = if waits.is_empty() {
            let run = unfinished.as_ref().map(|(path, record)| (path.as_path(), record.id.as_str()));
            look(&cache, options, stage, &begun, run)
        } else {
            let unknown: Vec<&str> = waits.iter().map(|(edge, _)| *edge).collect();
            let changes = if options.consults_cache() && cache.is_function(stage) {
                cache.changes(stage, &begun, &unknown).unwrap_or_default()
            } else {
                Vec::new()
            };
            let mut words: Vec<String> = changes.iter().map(ToString::to_string).collect();
            let mut names: Vec<String> = waits.iter().map(|(_, name)| format!("`{name}`")).collect();
            let mut said = BTreeSet::new();
            names.retain(|name| said.insert(name.clone()));
            let run = if names.len() == 1 { "runs" } else { "run" };
            words.push(format!("{} {run}", names.join(" and ")));
            (told(stage, State::Run, words.join(", "), changes), None)
        };
        if let Some(result) = result {
            results.insert(&stage.name, result);
        }
        explained.push(told);
    }
    Ok(explained)
}

fn told(stage: &PlannedStage, state: State, reason: String, changes: Vec<Change>) -> Explained {
    Explained { stage: stage.name.clone(), state, run: None, finished: None, reason, changes }
}

/// A stage whose inputs are there; `run` is the folder and the name of the run that goes on.
fn look(
    cache: &Cache<'_>,
    options: &RunOptions,
    stage: &PlannedStage,
    begun: &Begun,
    run: Option<(&Path, &str)>,
) -> (Explained, Option<String>) {
    let mut objection = None;
    if let Some((path, id)) = run {
        let folder = path.join(&stage.name);
        if let Some(manifest) = Manifest::read(&folder) {
            match manifest.objection(&folder, begun, &cache.plan.folder) {
                None => {
                    let told = told(stage, State::Done, format!("done in run {id}"), Vec::new());
                    let (run, finished) = (Some(id.to_owned()), Some(manifest.finished));
                    return (Explained { run, finished, ..told }, Some(manifest.result));
                }
                Some(found) => objection = Some(found.message),
            }
        }
    }
    if !cache.is_function(stage) {
        let reason = objection.unwrap_or_else(|| NO_FUNCTION.into());
        return (told(stage, State::Run, reason, Vec::new()), None);
    }
    if !options.consults_cache() {
        return (told(stage, State::Run, "the cache is not asked".into(), Vec::new()), None);
    }
    let looked = cache.look(stage, begun);
    if let Some(manifest) = looked.hit {
        let told = told(stage, State::Cached, format!("made by run {}", manifest.run), Vec::new());
        let (run, finished) = (Some(manifest.run), Some(manifest.finished));
        return (Explained { run, finished, ..told }, Some(manifest.result));
    }
    if let Some((path, id)) = run {
        let folder = path.join(&stage.name);
        let goes_on = objection.is_none()
            && Begun::read(&folder).is_some_and(|before| before.difference(begun).is_none())
            && fs::read_dir(&folder)
                .is_ok_and(|names| names.flatten().any(|entry| entry.file_name() != begun::FILE));
        if goes_on {
            let told = told(stage, State::Resume, format!("begun in run {id}"), Vec::new());
            return (Explained { run: Some(id.to_owned()), ..told }, None);
        }
    }
    if let Some(state) = cache.state(stage, begun) {
        let reason = format!("from the state of run {} after step {}", state.run, state.step);
        let told = told(stage, State::Resume, reason, Vec::new());
        return (Explained { run: Some(state.run), ..told }, None);
    }
    let damaged = looked.damaged.into_iter().map(|(_, _, words)| words).next();
    let (reason, changes) = cache.reason(stage, begun, objection.or(damaged).or(looked.occupied));
    (told(stage, State::Run, reason, changes), None)
}

impl Cache<'_> {
    /// Why `stage` is run; `objection` is what is wrong with a result that it would make.
    pub(crate) fn reason(
        &self,
        stage: &PlannedStage,
        begun: &Begun,
        objection: Option<String>,
    ) -> (String, Vec<Change>) {
        if let Some(objection) = objection {
            return (objection, Vec::new());
        }
        match self.changes(stage, begun, &[]) {
            None => ("no result of it is stored".into(), Vec::new()),
            Some(changes) if changes.is_empty() => ("its result is stored no more".into(), changes),
            Some(changes) => {
                let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
                let kind = self.registry.find(&stage.uses).map(|entry| &entry.kind);
                let extent = kind.map_or(Extent::None, |kind| kind.extent(&stage.params));
                let why = match extent {
                    Extent::Bound { key, why } if changes.iter().any(|change| change.what == key) => {
                        format!("; {why}")
                    }
                    _ => String::new(),
                };
                (words.join(", ") + &why, changes)
            }
        }
    }
}
