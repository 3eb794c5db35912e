//! Rows of a dataset as records, whatever format they were written in.

mod alpaca;
mod openai;
mod rows;
mod shape;
mod sharegpt;
mod text;
mod tokens;

use std::path::Path;
use std::str::FromStr;

use crate::DataError;
use crate::report::Reason;
use rows::{RawRow, Rows};
use shape::{Parsed, Shape};

/// One usable row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Questions and answers.
    Conversation(Conversation),
    /// A document.
    Text(String),
    /// Tokens that need no tokenizer.
    Tokens {
        /// Token ids.
        ids: Vec<u32>,
        /// The token to predict at each position, or [`MASKED`](crate::MASKED); the ids themselves if `None`.
        labels: Option<Vec<i32>>,
    },
}

/// A conversation that begins with the user and ends with an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// What precedes the first turn.
    pub system: Option<String>,
    /// Functions the assistant may call, as the dataset writes them (usually a JSON list).
    pub tools: Option<String>,
    /// Turns in order: asked, answered, asked, …
    pub turns: Vec<Turn>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// Functions called by an answer, as the dataset writes them (usually JSON with `name` and `arguments`).
    pub calls: Option<String>,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person who asks.
    User,
    /// The model: what is trained on.
    Assistant,
    /// A function's result.
    Observation,
}

impl Turn {
    /// A turn without function calls.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), calls: None }
    }

    /// Content and calls as one text.
    pub fn text(&self) -> String {
        match &self.calls {
            None => self.content.clone(),
            Some(calls) if self.content.is_empty() => calls.clone(),
            Some(calls) => format!("{}\n{calls}", self.content),
        }
    }
}

impl Conversation {
    /// This conversation if it can be trained on: it begins with the user, the sides alternate (results of several
    /// calls may follow each other), it ends with an answer, and no answer is empty.
    fn checked(self) -> Result<Record, Reason> {
        let Some(last) = self.turns.last() else { return Err(Reason::NoTurns) };
        if last.role != Role::Assistant {
            return Err(Reason::NoAnswerAtEnd);
        }
        let mut before = None;
        for turn in &self.turns {
            let fits = match turn.role {
                Role::User => matches!(before, None | Some(Role::Assistant)),
                Role::Observation => matches!(before, Some(Role::Assistant | Role::Observation)),
                Role::Assistant => matches!(before, Some(Role::User | Role::Observation)),
            };
            if !fits {
                return Err(Reason::NotAlternating);
            }
            before = Some(turn.role);
        }
        let empty = |turn: &Turn| turn.role == Role::Assistant && turn.text().trim().is_empty();
        if self.turns.iter().any(empty) {
            return Err(Reason::EmptyAnswer);
        }
        Ok(Record::Conversation(self))
    }
}

impl Record {
    /// Bytes of text, or tokens; for cutting work into parts.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Conversation(conversation) => {
                conversation.turns.iter().map(|turn| turn.content.len()).sum()
            }
            Self::Text(text) => text.len(),
            Self::Tokens { ids, .. } => ids.len(),
        }
    }
}

/// How the rows of a dataset are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `instruction`, `input`, `output`; optionally `system` and `history` (pairs of question and answer).
    Alpaca,
    /// `conversations` of `from` (human, gpt, system, observation, function_call) and `value`; optionally `system`
    /// and `tools`.
    ShareGpt,
    /// `messages` of `role` and `content`, with `tool_calls` where functions are called; optionally `tools`.
    OpenAi,
    /// A document a row: `text` in JSON, a line in any other file.
    Text,
    /// `input_ids` and, optionally, `labels` (not shifted, −100 for none).
    Tokens,
}

impl Format {
    /// Every format with its name in a workflow.
    pub const ALL: [(&'static str, Self); 5] = [
        ("alpaca", Self::Alpaca),
        ("sharegpt", Self::ShareGpt),
        ("openai", Self::OpenAi),
        ("text", Self::Text),
        ("tokens", Self::Tokens),
    ];

    fn parse(self, value: serde_json::Value) -> Result<Parsed, Shape> {
        match self {
            Self::Alpaca => alpaca::parse(value),
            Self::ShareGpt => sharegpt::parse(value),
            Self::OpenAi => openai::parse(value),
            Self::Text => text::parse(value),
            Self::Tokens => tokens::parse(value),
        }
    }
}

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, format)| format).ok_or_else(|| {
            DataError::UnknownFormat {
                name: name.to_owned(),
                known: Self::ALL.map(|(known, _)| format!("`{known}`")).join(", "),
            }
        })
    }
}

/// The rows of a dataset file, read one after another: memory is bounded by the longest row, not by the file.
///
/// JSON arrays and JSON Lines are told apart by their first byte. The first row of a wrong shape ends the iteration
/// with an error; a row that is well-formed but cannot be trained on comes with its [`Reason`].
#[derive(Debug)]
pub struct Records {
    rows: Rows,
    format: Format,
    failed: bool,
}

/// A row of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1.
    pub number: u64,
    /// What it says, or why it cannot be used.
    pub record: Result<Record, Reason>,
}

impl Records {
    /// The rows of the file at `path`, written in `format`.
    pub fn open(path: &Path, format: Format) -> Result<Self, DataError> {
        let json = |extension: &str| ["json", "jsonl", "ndjson"].contains(&extension);
        let plain = format == Format::Text
            && !path.extension().and_then(|it| it.to_str()).is_some_and(|it| json(&it.to_ascii_lowercase()));
        Ok(Self { rows: Rows::open(path, plain)?, format, failed: false })
    }

    fn row(&mut self) -> Result<Option<Row>, DataError> {
        let Some(row) = self.rows.next_row()? else { return Ok(None) };
        let record = match row {
            RawRow::Line(line) => text::document(line),
            RawRow::Json(value) => self.format.parse(value).map_err(|shape| self.rows.wrong_shape(shape))?,
        };
        Ok(Some(Row { number: self.rows.number(), record }))
    }
}

impl Iterator for Records {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row();
        self.failed = row.is_err();
        row.transpose()
    }
}
