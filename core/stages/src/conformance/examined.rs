//! What came of the checks.

use serde::{Deserialize, Serialize};

use super::News;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The card is open; what cannot be tried on it.
    Card { name: String, left_out: Vec<LeftOut> },
    /// It cannot be used.
    NoCard { message: String },
    /// A check begins.
    Begun { check: String, subject: String },
    /// It is over.
    Ended(Examined),
    /// It has left the card so that nothing can be computed on it in this process: the rest is another's.
    Lost,
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

/// What cannot be tried on a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// A check's name, or a recipe's.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl LeftOut {
    pub(super) fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into() }
    }
}

/// The results of all checks, in the order they ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Where the layers' memory was: `cpu`, or a card with its name.
    pub device: String,
    /// What was not tried there.
    pub left_out: Vec<LeftOut>,
    /// Each check of each recipe.
    pub checks: Vec<Examined>,
}

impl Examination {
    pub(super) fn add(&mut self, examined: Examined, hear: &mut dyn FnMut(News<'_>)) {
        hear(News::Ended(&examined));
        self.checks.push(examined);
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Examined> {
        self.checks.iter().filter(|examined| !examined.passed)
    }

    /// Whether there were checks, and all passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.failures().next().is_none()
    }
}
