//! Text that a workflow is read from: its file, and one virtual file for each `--set`.

/// The texts, in the order they were read; the workflow's file is the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources(Vec<Source>);

#[derive(Clone, Debug, PartialEq)]
struct Source {
    name: String,
    text: String,
    overrides: bool,
}

/// A piece of one of the texts: bytes from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Sources {
    /// Adds a text and returns its number. `overrides`: it was given on the command line.
    pub(crate) fn add(&mut self, name: String, text: String, overrides: bool) -> usize {
        self.0.push(Source { name, text, overrides });
        self.0.len() - 1
    }

    pub(crate) fn name(&self, source: usize) -> &str {
        &self.0[source].name
    }

    pub(crate) fn text(&self, source: usize) -> &str {
        &self.0[source].text
    }

    /// Whether the text was given on the command line.
    pub(crate) fn overrides(&self, source: usize) -> bool {
        self.0[source].overrides
    }

    /// The texts that were given on the command line.
    pub(crate) fn sets(&self) -> Vec<String> {
        let given = self.0.iter().filter(|source| source.overrides);
        given.map(|source| source.text.clone()).collect()
    }

    /// The text of `span`.
    pub(crate) fn slice(&self, span: Span) -> &str {
        self.text(span.source).get(span.start..span.end).unwrap_or_default()
    }

    /// Line and column of the start of `span`, both from 1, the column in characters.
    pub(crate) fn position(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let before = &text[..text.floor_char_boundary(span.start)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
