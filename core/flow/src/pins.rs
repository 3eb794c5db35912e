//! `workflow.lock`: what a workflow is made from and what came of it, to be kept with its text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::begun::Begun;
use crate::cache::Cache;
use crate::manifest::Manifest;
use crate::plan::{PlannedStage, counting};
use crate::store::Store;
use crate::{Error, Plan, Registry, RunOptions, atomic, relocate, run};

/// The version of the file's shape.
const FORMAT: u32 = 1;

/// A lock has a few lines for each stage and file; what is larger is none.
const MOST: u64 = 64 << 20;

/// What the file begins with.
const HEAD: &str =
    "# Written by `fp8flow lock`; `fp8flow run --locked` holds a run to it. Keep it with the workflow.\n\n";

/// A workflow's lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    format: u32,
    /// The program that wrote it, for people: the revisions count.
    made_by: String,
    /// What any result depends on beside the workflow: device, numerics revision.
    pub(crate) machine: Value,
    /// The tables beside the stages: values, and what they are bound to, such as a plugin.
    pub(crate) sections: Value,
    pub(crate) stages: BTreeMap<String, PinnedStage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedStage {
    pub(crate) uses: String,
    pub(crate) revision: u32,
    /// Edges, and the stages they name.
    pub(crate) inputs: Value,
    /// Its other keys, defaults written out, all but those that change no result.
    pub(crate) values: Value,
    /// What it left.
    pub(crate) left: Left,
}

/// What a stage has read outside the run, and what it has made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Left {
    /// Digest of what it says of its result and of these files.
    pub(crate) result: String,
    #[serde(default)]
    pub(crate) reads: Vec<PinnedFile>,
    #[serde(default)]
    pub(crate) outputs: Vec<PinnedFile>,
}

/// A file. Without size and digest: none is there, and that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedFile {
    pub(crate) path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blake3: Option<String>,
}

impl Pins {
    /// The place of the lock of `plan`: beside the workflow's file, each point of a matrix with its own.
    pub fn path(plan: &Plan) -> PathBuf {
        let point = plan.point.as_ref().map_or(String::new(), |point| format!("{point}."));
        plan.path.with_extension(point + "lock")
    }

    /// Pins `plan` and the results of its stages, every byte verified: those of the newest run that has them, else the
    /// stored ones. Fails with the names of the stages that have none.
    pub fn of(plan: &Plan, registry: &Registry, options: &RunOptions, made_by: &str) -> Result<Self, Error> {
        let results = results(plan, registry, options)?;
        let missing = plan.stages.iter().filter(|stage| !results.contains_key(stage.name.as_str()));
        let missing: Vec<String> = missing.map(|stage| format!("`{}`", stage.name)).collect();
        if !missing.is_empty() {
            return Err(Error::NothingToPin { stages: missing.join(", ") });
        }
        let stages = plan.stages.iter().map(|stage| {
            let left = Left::of(&results[stage.name.as_str()], &plan.folder);
            (stage.name.clone(), PinnedStage::new(stage, registry, left))
        });
        Ok(Self {
            format: FORMAT,
            made_by: made_by.to_owned(),
            machine: machine(plan, &options.binding),
            sections: sections(plan, registry, &options.binding),
            stages: stages.collect(),
        })
    }

    /// Reads a lock, or says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let invalid = |what: String| Error::InvalidLock { path: path.to_owned(), what };
        let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
        if size > MOST {
            return Err(invalid(format!("it has {size} bytes, more than any lock")));
        }
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text).map_err(invalid)
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let wrong = |error: toml::de::Error| error.to_string().trim().to_owned();
        let Format { format } = toml::from_str(text).map_err(wrong)?;
        if format != FORMAT {
            return Err(format!("it has format {format}; this version of fp8flow knows {FORMAT}"));
        }
        toml::from_str(text).map_err(wrong)
    }

    /// Writes the lock, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).map_err(std::io::Error::other).map_err(Error::io("write", path))?;
        atomic::write(path, (HEAD.to_owned() + &text).as_bytes()).map_err(Error::io("write", path))
    }

    /// This lock with what `now`, which pins `plan`, has for `stage` and for those that are made from it, however far; also
    /// their names.
    pub fn updated(mut self, now: &Self, plan: &Plan, stage: &str) -> (Self, Vec<String>) {
        let names = plan.from(stage);
        for name in &names {
            if let Some(pinned) = now.stages.get(name) {
                self.stages.insert(name.clone(), pinned.clone());
            }
        }
        self.made_by.clone_from(&now.made_by);
        (self, names)
    }
}

impl PinnedStage {
    pub(crate) fn new(stage: &PlannedStage, registry: &Registry, left: Left) -> Self {
        let entry = registry.find(&stage.uses);
        let fields = entry.map_or(&[][..], |entry| &entry.fields);
        let edges = |key: &str| fields.iter().any(|field| field.name == key && field.kind.is_edge());
        let mut values = counting(fields, stage.params.json());
        values.retain(|key, _| !edges(key));
        Self {
            uses: stage.uses.clone(),
            revision: entry.map_or(0, |entry| entry.kind.revision()),
            inputs: stage.inputs.iter().cloned().map(|(edge, name)| (edge, Value::from(name))).collect(),
            values: without_nulls(values.into()),
            left,
        }
    }
}

impl Left {
    pub(crate) fn of(manifest: &Manifest, workflow: &Path) -> Self {
        let reads = manifest.read.iter().map(|outside| PinnedFile {
            path: outside.path.clone(),
            size: outside.found.as_ref().map(|found| found.size),
            blake3: outside.found.as_ref().map(|found| found.blake3.clone()),
        });
        let outputs = manifest.counting().map(|output| PinnedFile {
            path: relocate::forgotten(&output.path, workflow),
            size: Some(output.size),
            blake3: Some(output.blake3.clone()),
        });
        Self { result: manifest.result.clone(), reads: reads.collect(), outputs: outputs.collect() }
    }
}

/// What counts for every stage.
pub(crate) fn machine(plan: &Plan, binding: &Value) -> Value {
    without_nulls(plan.machine(binding).into())
}

/// The values of every section, and what it is bound to.
pub(crate) fn sections(plan: &Plan, registry: &Registry, binding: &Value) -> Value {
    let sections = registry.section_entries().iter().filter_map(|entry| {
        let mut values = counting(&entry.fields, plan.section(entry.name)?.params.json());
        if entry.name == "workflow" {
            values.shift_remove("name");
        }
        Some((entry.name.to_owned(), json!({ "values": values, "bound": binding.get(entry.name) })))
    });
    without_nulls(sections.collect())
}

/// TOML has no word for nothing: what is nothing is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key, without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        value => value,
    }
}

/// The verified result of every stage that has one, by its name.
fn results<'a>(
    plan: &'a Plan,
    registry: &Registry,
    options: &RunOptions,
) -> Result<BTreeMap<&'a str, Manifest>, Error> {
    let runs = run::folder_of_runs(plan, options)?;
    let cache = Cache { store: Store::of(&runs), plan, registry, binding: &options.binding };
    let same = run::of_plan(plan, &runs, &options.binding);
    let mut results: BTreeMap<&str, Manifest> = BTreeMap::new();
    for stage in &plan.stages {
        let inputs = stage
            .inputs
            .iter()
            .map(|(edge, name)| Some((edge.clone(), results.get(name.as_str())?.result.clone())));
        let Some(inputs) = inputs.collect() else { continue };
        let begun = Begun::new(plan, registry, &options.binding, stage, inputs);
        let in_run = same.iter().find_map(|(run, _)| {
            let folder = run.join(&stage.name);
            Manifest::read(&folder).filter(|found| found.objection(&folder, &begun, &plan.folder).is_none())
        });
        if let Some(manifest) = in_run.or_else(|| cache.look(stage, &begun).hit) {
            results.insert(&stage.name, manifest);
        }
    }
    Ok(results)
}
