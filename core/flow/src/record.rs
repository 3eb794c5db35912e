//! `run.json`: what a run is, where it stands, and where it ran.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, atomic, look};

/// The name of the record in a run's folder.
const FILE: &str = "run.json";

/// The version of its shape.
pub(crate) const FORMAT: u32 = 2;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file's shape.
    pub format: u32,
    /// The name of the run's folder.
    pub id: String,
    /// Its place among the runs of its folder; the newest has the highest.
    pub sequence: u64,
    /// The workflow's name.
    pub workflow: String,
    /// The workflow's file.
    pub file: String,
    /// The folder of that file, absolute.
    #[serde(default)]
    pub folder: String,
    /// What `--set` laid over it, in order.
    #[serde(default)]
    pub sets: Vec<String>,
    /// The point of the workflow's matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The stages that were to be run, where it was not all of them ([`crate::Plan::only`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Digest of every value that counts ([`crate::Plan::identity`]).
    pub identity: String,
    /// What else must be the same for the run to go on: [`crate::RunOptions::binding`].
    pub binding: Value,
    /// Where it stands.
    pub status: Status,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was first begun.
    pub started: String,
    /// When this record was written.
    pub updated: String,
    /// The exit code of the last process that worked on it.
    pub exit_code: Option<u8>,
    /// What ended it, where it did not finish.
    pub error: Option<String>,
    /// Where it runs: [`crate::RunOptions::environment`].
    pub environment: Value,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A process works on it, or was killed doing so.
    Running,
    /// Stopped from outside, state saved.
    Interrupted,
    /// A stage has no result.
    Failed,
    /// Every stage has its result.
    Finished,
}

impl Status {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Finished => "finished",
        }
    }
}

impl Record {
    /// Reads the record of the run in `folder`; `None` if there is none or it cannot be understood.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Reads the record of the run in `folder`, or says what is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        look::json(&folder.join(FILE), FORMAT)
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        atomic::write_json(&folder.join(FILE), self)
    }
}

/// The folder of a run, and its record or what is wrong with that.
pub type FoundRun = (PathBuf, Result<Record, Error>);

/// Every folder of a run in `folder` with its record, oldest first; those whose record cannot be understood come last.
pub fn every_run(folder: &Path) -> Result<Vec<FoundRun>, Error> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let (path, hidden) = (entry.path(), entry.file_name().to_string_lossy().starts_with('.'));
        // `latest` leads to a run that is there under its own name; a run that is not born yet is hidden.
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) && path.join(FILE).exists() {
            let record = Record::open(&path);
            runs.push((path, record));
        }
    }
    runs.sort_by_key(|(path, record)| {
        (record.as_ref().map_or(u64::MAX, |record| record.sequence), path.clone())
    });
    Ok(runs)
}

/// The runs in `folder` with their records, oldest first.
pub fn runs(folder: &Path) -> Vec<(PathBuf, Record)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // `latest` leads to a run that is there under its own name.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut runs: Vec<(PathBuf, Record)> =
        folders.filter_map(|entry| Some((entry.path(), Record::read(&entry.path())?))).collect();
    runs.sort_by(|(_, a), (_, b)| (a.sequence, &a.id).cmp(&(b.sequence, &b.id)));
    runs
}
