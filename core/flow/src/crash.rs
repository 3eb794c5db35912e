//! A run whose process a plugin has crashed: the note that the handler of the crash leaves in the run's folder.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// More bytes than a note has.
const LONGEST: u64 = 1 << 14;

/// The call of a plugin that has ended a run's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// The plugin's name.
    pub plugin: String,
    /// The layer that the call was about; empty where it was about none.
    pub layer: String,
    /// The call's name.
    pub call: String,
    /// The signal that ended the process, in words.
    pub signal: String,
}

impl Crash {
    /// Where the note is in the folder of a run: a JSON object with the fields of this type. Whoever catches crashes writes
    /// it, aside first, as [`crate::atomic`] calls files aside.
    pub fn path(run: &Path) -> PathBuf {
        run.join("crash.json")
    }

    /// What the note in the folder of a run says, if a whole one is there.
    pub(crate) fn noted(run: &Path) -> Option<Self> {
        let mut text = String::new();
        fs::File::open(Self::path(run)).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Takes the note away, for the run goes on.
    pub(crate) fn forget(run: &Path) -> Result<(), Error> {
        let path = Self::path(run);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, layer, call, signal } = self;
        write!(f, "plugin `{plugin}` crashed it with {signal} in `{call}`")?;
        if layer.is_empty() { Ok(()) } else { write!(f, " of layer `{layer}`") }
    }
}
