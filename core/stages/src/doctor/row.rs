//! What was found, row by row.

pub(super) use crate::model::gb;
use fp8flow_flow::Class;
use serde::Serialize;
use serde_json::{Value, json};

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Processor, memory, disk.
    Machine,
    /// NVIDIA's driver, cards and libraries.
    Cuda,
    /// Backend plugins.
    Plugins,
    /// The workflow that was asked about.
    Workflow,
}

/// What a row is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It could be better; nothing fails for it.
    Warn,
    /// It does not work.
    Fail,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is about.
    pub group: Group,
    /// What was looked at: the same word on every machine, or the name of a plugin.
    pub name: String,
    /// What it is worth.
    pub status: Status,
    /// What was found, in words.
    pub found: String,
    /// What to do, as a sentence, where there is something to do.
    pub advice: Option<String>,
    /// Where it was found: a path.
    pub place: Option<String>,
    /// What was found, for programs.
    pub facts: Value,
}

impl Row {
    pub(super) fn new(
        group: Group,
        name: impl Into<String>,
        status: Status,
        found: impl Into<String>,
    ) -> Self {
        let (name, found) = (name.into(), found.into());
        Self { group, name, status, found, advice: None, place: None, facts: json!({}) }
    }

    pub(super) fn advice(self, sentence: impl Into<String>) -> Self {
        Self { advice: Some(sentence.into()), ..self }
    }

    pub(super) fn place(self, path: impl Into<String>) -> Self {
        Self { place: Some(path.into()), ..self }
    }

    pub(super) fn facts(self, facts: Value) -> Self {
        Self { facts, ..self }
    }
}

/// All rows, and what they come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The rows, in groups.
    pub rows: Vec<Row>,
    /// None if the answer is yes: everything works, or the workflow can run. Else why not.
    pub class: Option<Class>,
}

impl Diagnosis {
    /// How many rows have `status`.
    pub fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }
}
