//! Why something did not work, as far as the caller's next step depends on it; the exit codes of the binary.

use serde::{Deserialize, Serialize};

/// The class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The work itself failed: running it again gives the same.
    Failed,
    /// The workflow, or a file it names, is not valid: change it.
    Invalid,
    /// Something is not as the workflow's lock has it.
    Locked,
    /// Two results that should have the same bits have others.
    Differ,
    /// A backend or a device is missing: install it.
    Missing,
    /// A fault of the program or of a plugin.
    Bug,
    /// A file could not be read or written: make room, mend the permissions, run again.
    Io,
    /// Stopped from outside, state saved: run again to go on.
    Interrupted,
}

impl Class {
    /// The exit code of a process that ends with this error.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 3,
            Self::Locked => 5,
            Self::Differ => 6,
            Self::Missing => 69,
            Self::Bug => 70,
            Self::Io => 74,
            Self::Interrupted => 75,
        }
    }

    /// One word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Locked => "locked",
            Self::Differ => "differ",
            Self::Missing => "missing",
            Self::Bug => "bug",
            Self::Io => "I/O",
            Self::Interrupted => "interrupted",
        }
    }
}
