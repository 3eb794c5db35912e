//! What a stage was begun with: kept in its folder while it works, so that a later attempt goes on only from what was
//! made of the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, atomic};

/// The name of the note in a stage's folder.
pub(crate) const FILE: &str = ".begun.json";

/// What a stage is made from, all but the files outside the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Edge, and [`crate::manifest::Manifest::result`] of that stage.
    pub(crate) inputs: BTreeMap<String, String>,
    /// Its values, defaults written out, without those that change no result.
    pub(crate) params: Map<String, Value>,
}

impl Begun {
    /// The note in `folder`; `None` if there is none or it cannot be understood.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        atomic::write_json(&folder.join(FILE), self)
    }

    /// In words, how `now` differs from this, if it does.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        if let Some((edge, _)) =
            now.inputs.iter().find(|(edge, result)| self.inputs.get(*edge) != Some(result))
        {
            return Some(format!("`{edge}` has changed since"));
        }
        let (key, value) = now.params.iter().find(|(key, value)| self.params.get(*key) != Some(value))?;
        let before = self.params.get(key).map_or("nothing".into(), ToString::to_string);
        Some(format!("`{key}` was {before} and is {value}"))
    }
}
