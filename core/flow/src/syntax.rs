//! TOML as a tree in which every key and value knows where it stands, in the order of the file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::findings::{Finding, code};
use crate::source::{Sources, Span};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Tree,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Text(String),
    /// What does not fit stands at the end of the range: no field accepts it.
    Integer(i128),
    Number(f64),
    Bool(bool),
    /// TOML has dates; no field does.
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// The keys of a table, in the order they were first written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) Vec<Entry>);

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key was first written: for `[stages.train]` within the header.
    pub(crate) span: Span,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }
}

impl Node {
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Tree::Table(table) => Some(table),
            _ => None,
        }
    }

    /// What the value is, with an article.
    pub(crate) fn describe(&self) -> &'static str {
        match self.value {
            Tree::Text(_) => "a string",
            Tree::Integer(_) => "a whole number",
            Tree::Number(_) => "a number with a fraction",
            Tree::Bool(_) => "true or false",
            Tree::Date => "a date",
            Tree::List(_) => "a list",
            Tree::Table(_) => "a table",
        }
    }
}

/// Reads a whole text. Every error of syntax is found, not only the first.
pub(crate) fn document(sources: &Sources, source: usize) -> Result<Table, Vec<Finding>> {
    let text = sources.text(source);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(source, tree.get_ref()));
    }
    Err(few(sources, errors.iter().map(|error| finding(source, text, error)).collect()))
}

/// One slip (a bracket left open) makes nonsense of all that follows: one finding a line, and the first five.
fn few(sources: &Sources, findings: Vec<Finding>) -> Vec<Finding> {
    const MOST: usize = 5;
    let total = findings.len();
    let mut lines = Vec::new();
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let line = finding.primary.as_ref().map(|(span, _)| sources.position(*span).0);
        if kept.len() < MOST && !lines.contains(&line) {
            lines.push(line);
            kept.push(finding);
        }
    }
    let left = total - kept.len();
    if let (1.., Some(last)) = (left, kept.last_mut()) {
        last.notes.push(format!("and {left} more errors of syntax, which may follow from these"));
    }
    kept
}

/// Reads one value that begins at byte `start` of a text and fills the rest of it.
pub(crate) fn value(sources: &Sources, source: usize, start: usize) -> Result<Node, Vec<Finding>> {
    let text = sources.text(source);
    let (tree, errors) = DeValue::parse_recoverable(&text[start..]);
    let shift = |mut span: Span| {
        span.start += start;
        span.end += start;
        span
    };
    if errors.is_empty() {
        let mut node = node(source, &tree);
        node.each_span(&mut |span| *span = shift(*span));
        return Ok(node);
    }
    let finding = |error: &toml::de::Error| {
        let mut finding = finding(source, &text[start..], error);
        finding.primary = finding.primary.map(|(span, label)| (shift(span), label));
        finding
    };
    Err(errors.iter().map(finding).collect())
}

fn finding(source: usize, text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(text.len()..text.len());
    let start = text.floor_char_boundary(span.start);
    let span = Span { source, start, end: text.ceil_char_boundary(span.end).max(start) };
    Finding::error(code::SYNTAX, error.message().trim().replace('\n', "; ")).at(span, "")
}

fn node(source: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let span = Span { source, start: value.span().start, end: value.span().end };
    let value = match value.get_ref() {
        DeValue::String(text) => Tree::Text(text.clone().into_owned()),
        DeValue::Integer(digits) => {
            let most = if digits.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Tree::Integer(i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(most))
        }
        DeValue::Float(digits) => Tree::Number(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Tree::Bool(*yes),
        DeValue::Datetime(_) => Tree::Date,
        DeValue::Array(list) => Tree::List(list.iter().map(|element| node(source, element)).collect()),
        DeValue::Table(inner) => Tree::Table(table(source, inner)),
    };
    Node { span, value }
}

fn table(source: usize, table: &DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            span: Span { source, start: key.span().start, end: key.span().end },
            node: node(source, value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.span.start);
    Table(entries)
}

impl Node {
    fn each_span(&mut self, f: &mut impl FnMut(&mut Span)) {
        f(&mut self.span);
        match &mut self.value {
            Tree::List(list) => list.iter_mut().for_each(|node| node.each_span(f)),
            Tree::Table(table) => {
                for entry in &mut table.0 {
                    f(&mut entry.span);
                    entry.node.each_span(f);
                }
            }
            _ => {}
        }
    }
}
