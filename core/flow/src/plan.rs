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
    /// The point of the matrix, if the workflow has one.
    pub point: Option<String>,
    /// The stages that are to be run, where it is not all of them ([`Plan::only`]).
    pub only: Vec<String>,
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

    /// The stage `name` and those that are made from it, however far.
    pub(crate) fn from(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for stage in &self.stages {
            if stage.name == name || stage.inputs.iter().any(|(_, input)| names.contains(input)) {
                names.push(stage.name.clone());
            }
        }
        names
    }

    /// The plan of the stages `only`: those that they are made from are taken from the store and never run, the others
    /// are left out. A run of it is another run than one of the whole. The error is a name that no stage has.
    pub fn only(mut self, only: &[String]) -> Result<Self, String> {
        if let Some(unknown) = only.iter().find(|name| self.stage(name).is_none()) {
            return Err(unknown.clone());
        }
        let mut needed: Vec<String> = only.to_vec();
        for stage in self.stages.iter().rev() {
            if needed.contains(&stage.name) {
                needed.extend(stage.inputs.iter().map(|(_, input)| input.clone()));
            }
        }
        self.stages.retain(|stage| needed.contains(&stage.name));
        let names = self.stages.iter().map(|stage| stage.name.clone());
        self.only = names.filter(|name| only.contains(name)).collect();
        self.identity = digest::of_json(&json!({ "of": self.identity, "only": self.only }));
        Ok(self)
    }

    /// Whether a stage is only there for others, which take its result.
    pub(crate) fn only_takes(&self, name: &str) -> bool {
        !self.only.is_empty() && !self.only.iter().any(|only| only == name)
    }

    /// The section `name`.
    pub fn section(&self, name: &str) -> Option<&PlannedSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// What of `binding` counts for every stage. What bears the name of a section counts for those that look at it.
    pub(crate) fn machine(&self, binding: &Value) -> Map<String, Value> {
        let all = binding.as_object().into_iter().flatten();
        let machine = all.filter(|(key, _)| self.section(key).is_none());
        machine.map(|(key, value)| (key.clone(), value.clone())).collect()
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
