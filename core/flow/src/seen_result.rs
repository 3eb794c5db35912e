//! What a finished stage left, from outside: its manifest for whoever shows a run.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::manifest::{self, Output};
use crate::outside::Outside;
use crate::{Error, Seen, look, plan};

/// The result of a stage.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenResult {
    /// The run that made it, which may be another one.
    pub run: String,
    /// When.
    pub finished: String,
    /// How long it took.
    pub seconds: f64,
    /// The lines for the report at the end of the run.
    pub report: Vec<String>,
    /// How it came about ([`crate::Outcome::account`]).
    pub account: Value,
    /// Digest of all that counts.
    pub result: String,
    outputs: Vec<Output>,
    read: Vec<Outside>,
}

/// A file with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFile {
    /// Within the folder of the stage, or of the workflow where it was read; or absolute.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// Its blake3, in hexadecimal.
    pub blake3: String,
}

impl SeenResult {
    /// The files that it consists of.
    pub fn outputs(&self) -> impl Iterator<Item = SeenFile> {
        let file = |Output { path, size, blake3 }: &Output| SeenFile {
            path: path.clone(),
            size: *size,
            blake3: blake3.clone(),
        };
        self.outputs.iter().map(file)
    }

    /// The files outside the run that it was made from, those that were there.
    pub fn inputs(&self) -> impl Iterator<Item = SeenFile> {
        self.read.iter().filter_map(|outside| {
            let found = outside.found.as_ref()?;
            Some(SeenFile { path: outside.path.clone(), size: found.size, blake3: found.blake3.clone() })
        })
    }
}

impl Seen {
    /// The result of the stage `name`, if it has one.
    pub fn result(&self, name: &str) -> Result<Option<SeenResult>, Error> {
        let path = self.folder.join(name).join(manifest::FILE);
        if path.exists() { look::json(&path, manifest::FORMAT).map(Some) } else { Ok(None) }
    }

    /// What was planned: every section and stage with every value; nothing in a run that was killed before it wrote that.
    pub fn plan(&self) -> Result<Map<String, Value>, Error> {
        let path = self.folder.join(plan::FILE);
        if path.exists() { look::json(&path, plan::FORMAT) } else { Ok(Map::new()) }
    }

    /// The text of its workflow, if that can be read.
    pub fn workflow(&self) -> Option<String> {
        std::fs::read(self.folder.join(plan::WORKFLOW)).ok().map(|text| String::from_utf8_lossy(&text).into())
    }
}
