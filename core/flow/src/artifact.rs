//! What a stage hands to the stages after it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of a stage, as the next one sees it: files in a folder, and words about them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// The stage that made it.
    pub stage: String,
    /// Its type, matched against the edge: `"records"`, `"model"`.
    pub kind: String,
    /// The folder of the stage that made it.
    pub dir: PathBuf,
    /// What that stage said about it ([`Outcome::info`]): a file's name, a model's folder, counts.
    pub info: Value,
}

/// What a stage returns when it is done.
///
/// ```
/// # use fp8flow_flow::Outcome;
/// # use serde_json::json;
/// Outcome::new(json!({ "file": "tokens.bin", "examples": 2800 })).summary("2800 examples, 3 dropped");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// For the stages downstream ([`Artifact::info`]).
    pub info: Value,
    /// One line for people.
    pub summary: String,
    /// Lines for the report at the end of the run.
    pub report: Vec<String>,
    /// How it came about, for programs: no part of the result, since another time it may come about in another way.
    pub account: Value,
    /// Files and folders of the stage's own folder that say the same, and states on the way: kept and verified as the
    /// others are, but no part of the result either.
    pub aside: Vec<PathBuf>,
    /// Files and folders written outside the stage's own folder: digested with the rest.
    pub outside: Vec<PathBuf>,
    /// Files outside the run that the result depends on, whether they were there or not: a later attempt does the stage
    /// again where they hold something else.
    pub read: Vec<PathBuf>,
}

impl Outcome {
    /// An outcome with `info` for the stages downstream.
    pub fn new(info: Value) -> Self {
        Self { info, ..Self::default() }
    }

    /// Sets the line for people.
    #[must_use]
    pub fn summary(mut self, line: impl Into<String>) -> Self {
        self.summary = line.into();
        self
    }

    /// Adds a line to the report at the end of the run.
    #[must_use]
    pub fn report(mut self, line: impl Into<String>) -> Self {
        self.report.push(line.into());
        self
    }

    /// Sets the account for programs.
    #[must_use]
    pub fn account(mut self, account: Value) -> Self {
        self.account = account;
        self
    }

    /// Declares files and folders of the stage's folder that are no part of the result.
    #[must_use]
    pub fn aside(mut self, paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        self.aside.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Declares a file or folder that was written outside the stage's folder.
    #[must_use]
    pub fn wrote(mut self, path: impl Into<PathBuf>) -> Self {
        self.outside.push(path.into());
        self
    }

    /// Declares files outside the run that the result depends on.
    #[must_use]
    pub fn read(mut self, paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        self.read.extend(paths.into_iter().map(Into::into));
        self
    }
}
