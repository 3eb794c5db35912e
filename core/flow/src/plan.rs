//! A workflow that can be run: stages in order, every value written out.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::digest;
use crate::findings::Findings;
use crate::places::Places;
use crate::{Field, Kind, Params};

/// The name of the plan in a run's folder.
pub(crate) const FILE: &str = "plan.json";

/// The version of its shape.
pub(crate) const FORMAT: u32 = 1;

/// The text of the workflow in a run's folder.
pub(crate) const WORKFLOW: &str = "workflow.toml";

/// A workflow that can be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workflow's name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The folder of the file, absolute; paths in it are relative to this.
    pub folder: PathBuf,
    /// The text of the file.
    pub text: String,
    /// What `--set` laid over it, in order.
    pub sets: Vec<String>,
    /// The tables beside `[stages]`.
    pub sections: Vec<PlannedSection>,
    /// The stages, each after those it waits for; otherwise in the order of the file.
    pub stages: Vec<PlannedStage>,
    /// Digest of every value that counts: two workflows with the same one are the same run.
    pub identity: String,
    /// What a person should know although the run can start.
    pub warnings: Findings,
    /// Where its keys are written.
    pub(crate) places: Places,
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its name in the workflow.
    pub name: String,
    /// Its kind.
    pub uses: String,
    /// The kind of its artifact.
    pub produces: String,
    /// Its values, defaults written out.
    pub params: Params,
    /// Its edges: the key, and the stage it names.
    pub inputs: Vec<(String, String)>,
    /// What it knows before any work.
    pub facts: Value,
    /// The same for people.
    pub lines: Vec<String>,
    /// Digest of every value that counts of this stage, of the stages before it and of the sections; all but where it ends,
    /// if that is open ([`crate::Extent`]).
    pub(crate) lineage: String,
}

/// A section of a plan.
#[derive(Clone, Debug)]
pub struct PlannedSection {
    /// Its name.
    pub name: String,
    /// Its values, defaults written out.
    pub params: Params,
    /// What it knows before any work.
    pub facts: Value,
    /// The same for people.
    pub lines: Vec<String>,
}

impl Plan {
    /// The stage `name`.
    pub fn stage(&self, name: &str) -> Option<&PlannedStage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// The section `name`.
    pub fn section(&self, name: &str) -> Option<&PlannedSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Everything, for `plan --json` and the run's `plan.json`.
    pub fn json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            (section.name.clone(), json!({ "params": section.params.json(), "facts": section.facts }))
        });
        let stages = self.stages.iter().map(|stage| {
            json!({
                "name": stage.name,
                "uses": stage.uses,
                "produces": stage.produces,
                "inputs": stage.inputs.iter().cloned().map(|(edge, name)| (edge, Value::from(name))).collect::<Map<_, _>>(),
                "params": stage.params.json(),
                "facts": stage.facts,
            })
        });
        json!({
            "format": FORMAT,
            "name": self.name,
            "identity": self.identity,
            "sections": sections.collect::<Map<_, _>>(),
            "stages": stages.collect::<Vec<_>>(),
        })
    }
}

/// A name, its field table and its values as written, defaults filled in.
pub(crate) type Written<'a> = (&'a str, &'a [Field], &'a Map<String, Value>);

/// The digest of the values that count.
pub(crate) fn identity<'a>(
    sections: impl Iterator<Item = Written<'a>>,
    stages: impl Iterator<Item = Written<'a>>,
) -> String {
    let count =
        |(name, fields, values): Written<'a>| (name.to_owned(), Value::from(counting(fields, values)));
    let sections: Map<String, Value> = sections.map(count).collect();
    let stages: Map<String, Value> = stages.map(count).collect();
    digest::of_json(&json!({ "sections": sections, "stages": stages }))
}

/// `values` without those that change no result.
pub(crate) fn counting(fields: &[Field], values: &Map<String, Value>) -> Map<String, Value> {
    let mut kept = values.clone();
    for field in fields {
        match (&field.kind, kept.get_mut(field.name)) {
            _ if !field.counts => {
                kept.remove(field.name);
            }
            (Kind::Table(inner), Some(Value::Object(values))) => *values = counting(inner, values),
            (kind, Some(Value::Array(list))) => {
                let Some(inner) = kind.inner() else { continue };
                for values in list.iter_mut().filter_map(Value::as_object_mut) {
                    *values = counting(inner, values);
                }
            }
            _ => {}
        }
    }
    kept
}
