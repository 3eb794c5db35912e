//! What the suite found, check by check.

use std::fmt;

/// The results of a run of the suite.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every check of every recipe, in the order they ran.
    pub outcomes: Vec<Outcome>,
    /// Checks that cannot be tried where the layers were, each with the reason.
    pub left_out: Vec<(&'static str, &'static str)>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The check's name.
    pub check: &'static str,
    /// The recipe and its options, or `backend` for a check of the whole.
    pub subject: String,
    /// What was measured, or what is wrong.
    pub result: Result<String, String>,
}

impl Report {
    /// Whether every check passed; false if none ran.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.failures().next().is_none()
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.result.is_err())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Outcome { check, subject, result } in &self.outcomes {
            match result {
                Ok(found) => writeln!(f, "ok      {check:<14} {subject}: {found}")?,
                Err(wrong) => writeln!(f, "FAILED  {check:<14} {subject}: {wrong}")?,
            }
        }
        for (check, reason) in &self.left_out {
            writeln!(f, "left out {check}: {reason}")?;
        }
        let failed = self.failures().count();
        write!(f, "{} checks, {failed} failed", self.outcomes.len())
    }
}
