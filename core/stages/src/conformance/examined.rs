//! What came of the checks.

use serde::{Deserialize, Serialize};

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// A check begins.
    Begun { check: String, subject: String },
    /// It is over.
    Ended(Examined),
    /// The plugin cannot be loaded.
    Refused { message: String },
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// The check's name.
    pub check: String,
    /// The recipe and its options; `backend` for a check of the whole, `library` for the load.
    pub subject: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was measured, or what is wrong.
    pub message: String,
}

impl Examined {
    pub(super) fn failed(check: &str, subject: &str, message: String) -> Self {
        Self { check: check.to_owned(), subject: subject.to_owned(), passed: false, message }
    }
}

/// The results of all checks, in the order they ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Each check of each recipe.
    pub checks: Vec<Examined>,
}

impl Examination {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Examined> {
        self.checks.iter().filter(|examined| !examined.passed)
    }

    /// Whether there were checks, and all passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.failures().next().is_none()
    }
}
