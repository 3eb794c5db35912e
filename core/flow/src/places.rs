//! Where the keys of a plan are written.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::source::{Sources, Span};
use crate::syntax::{Table, Tree};

/// Where the values of a workflow's keys stand in its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    sources: Sources,
    spans: BTreeMap<String, Span>,
}

/// A place in the text of a workflow, or of a `--set`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextPlace {
    /// The file, or the number of the `--set`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl std::fmt::Display for TextPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Places {
    pub(crate) fn new(sources: Sources, root: &Table) -> Self {
        let mut spans = BTreeMap::new();
        walk(root, "", &mut spans);
        Self { sources, spans }
    }

    /// The place of the value of `key`, `stages.train.optimizer.lr`, or of the innermost table around it that is
    /// written; `None` where that would be no nearer than the stage.
    pub(crate) fn of(&self, key: &str) -> Option<TextPlace> {
        let mut key = key;
        let span = loop {
            if let Some(span) = self.spans.get(key) {
                break *span;
            }
            key = key.rsplit_once('.')?.0;
        };
        let (line, column) = self.sources.position(span);
        Some(TextPlace { file: self.sources.name(span.source).to_owned(), line, column })
    }
}

fn walk(table: &Table, prefix: &str, spans: &mut BTreeMap<String, Span>) {
    for entry in &table.0 {
        let key = format!("{prefix}{}", entry.key);
        let span = match &entry.node.value {
            Tree::Table(inner) => {
                walk(inner, &format!("{key}."), spans);
                entry.span
            }
            _ => entry.node.span,
        };
        spans.insert(key, span);
    }
}
