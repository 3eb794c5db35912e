//! What became of every row.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a well-formed row is not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A conversation without turns.
    NoTurns,
    /// A conversation whose last turn is not the assistant's.
    NoAnswerAtEnd,
    /// Turns of one side follow each other, or the assistant begins.
    NotAlternating,
    /// A system message after the first turn.
    LateSystem,
    /// An answer is empty or blank.
    EmptyAnswer,
    /// A document or a token sequence is empty or blank.
    EmptyText,
    /// No label is left to predict, before or after the cutoff.
    NothingToPredict,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTurns => "no turns",
            Self::NoAnswerAtEnd => "does not end with an answer",
            Self::NotAlternating => "turns do not alternate",
            Self::LateSystem => "a system message after the first turn",
            Self::EmptyAnswer => "an empty answer",
            Self::EmptyText => "empty",
            Self::NothingToPredict => "no token left to predict",
        })
    }
}

/// Rows dropped for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub rows: u64,
    /// The first of them, counted from 1.
    pub first: u64,
}

/// The account of a tokenization: `rows = kept + held_out + every dropped row`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// Rows of the dataset.
    pub rows: u64,
    /// Examples to train on.
    pub kept: u64,
    /// Examples held out.
    pub held_out: u64,
    /// Rows not used, by reason.
    pub dropped: BTreeMap<Reason, Dropped>,
    /// Examples whose end was cut off, kept or held out.
    pub truncated: u64,
    /// Tokens cut off from them.
    pub truncated_tokens: u64,
    /// Tokens of the examples to train on.
    pub tokens: u64,
    /// Those of them that are predicted.
    pub trained_tokens: u64,
    /// Tokens of the longest example to train on.
    pub longest: u64,
}

impl TokenReport {
    /// Rows not used.
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.values().map(|dropped| dropped.rows).sum()
    }

    /// Counts row `number` as dropped.
    pub(crate) fn drop_row(&mut self, number: u64, reason: Reason) {
        self.dropped.entry(reason).or_insert(Dropped { rows: 0, first: number }).rows += 1;
    }
}

impl fmt::Display for TokenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows: {} kept", self.rows, self.kept)?;
        if self.held_out > 0 {
            write!(f, ", {} held out", self.held_out)?;
        }
        write!(f, ", {} dropped", self.dropped_rows())?;
        for (i, (reason, dropped)) in self.dropped.iter().enumerate() {
            let before = if i == 0 { " (" } else { "; " };
            write!(f, "{before}{}: {reason}, first row {}", dropped.rows, dropped.first)?;
        }
        if !self.dropped.is_empty() {
            f.write_str(")")?;
        }
        write!(f, "; {} truncated", self.truncated)?;
        if self.truncated > 0 {
            write!(f, " by {} tokens", self.truncated_tokens)?;
        }
        write!(
            f,
            "; {} tokens, {} of them predicted, longest {}",
            self.tokens, self.trained_tokens, self.longest
        )
    }
}
