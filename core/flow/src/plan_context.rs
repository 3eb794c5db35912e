//! What a stage or section sees while it is planned, and how it objects.

use std::path::Path;

use serde_json::Value;

use crate::plan::{PlannedSection, PlannedStage};
use crate::{Class, Params};

/// What a stage or section sees while it is planned.
pub struct PlanCx<'a> {
    pub(crate) params: &'a Params,
    pub(crate) runs: &'a Path,
    pub(crate) inputs: &'a [(String, String)],
    pub(crate) stages: &'a [PlannedStage],
    pub(crate) sections: &'a [PlannedSection],
    pub(crate) issues: Vec<Issue>,
}

/// An objection to the value of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
    pub(crate) code: Option<&'static str>,
    pub(crate) class: Class,
    pub(crate) warning: bool,
}

impl<'a> PlanCx<'a> {
    /// The values of the stage's own keys.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// The planned stage that the edge `edge` names. `None` where the edge is not written, or that stage is not
    /// valid itself (which is reported there): then skip what depends on it.
    pub fn input(&self, edge: &str) -> Option<&'a PlannedStage> {
        let (_, stage) = self.inputs.iter().find(|(name, _)| *name == edge)?;
        self.stages.iter().find(|planned| planned.name == *stage)
    }

    /// The planned stages that the edges name which the user has named in the table `key`; without those that are not
    /// valid themselves.
    pub fn inputs(&self, key: &str) -> Vec<(&'a str, &'a PlannedStage)> {
        let inputs = self.inputs.iter().filter_map(|(edge, _)| {
            let name = edge.strip_prefix(key)?.strip_prefix('.')?;
            self.input(edge).map(|stage| (name, stage))
        });
        inputs.collect()
    }

    /// Any planned stage upstream, by name.
    pub fn stage(&self, name: &str) -> Option<&'a PlannedStage> {
        self.stages.iter().find(|planned| planned.name == name)
    }

    /// Every stage that is planned and comes before this one in a run.
    pub fn stages_before(&self) -> &'a [PlannedStage] {
        self.stages
    }

    /// A section, as planned; `None` where it is not valid itself.
    pub fn section(&self, name: &str) -> Option<&'a PlannedSection> {
        self.sections.iter().find(|planned| planned.name == name)
    }

    /// The workflow's folder.
    pub fn folder(&self) -> &'a Path {
        self.params.base()
    }

    /// The folder of runs.
    pub fn runs(&self) -> &'a Path {
        self.runs
    }

    /// Objects to the value of `key` (dotted for inner tables, a number for an element of a list: `skip.0`). The run
    /// will not start.
    pub fn error(&mut self, key: &str, message: impl Into<String>) -> &mut Issue {
        self.push(key, message.into(), false)
    }

    /// Notes something about the value of `key` that a person should know although the run can start.
    pub fn warning(&mut self, key: &str, message: impl Into<String>) -> &mut Issue {
        self.push(key, message.into(), true)
    }

    /// Whether anything was objected to so far.
    pub fn has_errors(&self) -> bool {
        self.issues.iter().any(|issue| !issue.warning)
    }

    fn push(&mut self, key: &str, message: String, warning: bool) -> &mut Issue {
        self.issues.push(Issue { warning, ..Issue::new(key, message) });
        let last = self.issues.len() - 1;
        &mut self.issues[last]
    }
}

impl Issue {
    pub(crate) fn new(key: &str, message: String) -> Self {
        Self {
            key: key.into(),
            message,
            label: String::new(),
            help: None,
            code: None,
            class: Class::Invalid,
            warning: false,
        }
    }

    /// Words beside the caret.
    pub fn label(&mut self, words: impl Into<String>) -> &mut Self {
        self.label = words.into();
        self
    }

    /// What to do, as a sentence.
    pub fn help(&mut self, sentence: impl Into<String>) -> &mut Self {
        self.help = Some(sentence.into());
        self
    }

    /// Suggests the nearest of `known`, where one is near `found`.
    pub fn did_you_mean<S: AsRef<str>>(
        &mut self,
        found: &str,
        known: impl IntoIterator<Item = S>,
    ) -> &mut Self {
        if let Some(suggestion) = crate::suggest::did_you_mean(found, known) {
            self.help = Some(suggestion);
        }
        self
    }

    /// The class, where it is not [`Class::Invalid`]: a missing backend is [`Class::Missing`].
    pub fn class(&mut self, class: Class) -> &mut Self {
        self.class = class;
        self
    }

    /// A code of its own, such as [`NO_DEVICE`](crate::code::NO_DEVICE).
    pub fn code(&mut self, code: &'static str) -> &mut Self {
        self.code = Some(code);
        self
    }
}

impl PlannedStage {
    /// The fact `name`, if there.
    pub fn fact(&self, name: &str) -> Option<&Value> {
        self.facts.get(name)
    }
}
