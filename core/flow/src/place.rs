//! Where in the text the value of a key stands.

use crate::findings::{Finding, code};
use crate::plan_context::Issue;
use crate::source::Span;
use crate::syntax::{Node, Table, Tree};

/// Where a section or stage stands in the text.
pub(crate) struct Place<'a> {
    /// Its name.
    pub(crate) span: Option<Span>,
    pub(crate) table: Option<&'a Table>,
}

impl Place<'_> {
    /// An objection at the value of its key, or as near to it as anything is written.
    pub(crate) fn finding(&self, issue: Issue) -> Finding {
        // A title is a line; what else there is to say stands below the caret.
        let (title, more) = issue.message.split_once('\n').unwrap_or((&issue.message, ""));
        let mut finding = Finding::error(issue.code.unwrap_or(code::OBJECTION), title).help(issue.help);
        finding.notes.extend((!more.is_empty()).then(|| more.to_owned()));
        finding.class = issue.class;
        finding.warning = issue.warning;
        let (span, whole) = self.nearest(&issue.key);
        if !whole && !issue.key.is_empty() {
            finding = finding.note(format!("`{}` is not written: its default stands", issue.key));
        }
        match span {
            Some(span) => finding.at(span, issue.label),
            None => finding,
        }
    }

    /// The place of the value of `key`, and whether it is written; else of the last key on the way to it.
    fn nearest(&self, key: &str) -> (Option<Span>, bool) {
        let mut span = self.span;
        let mut table = self.table;
        let mut list: Option<&[Node]> = None;
        for part in key.split('.') {
            let (key_span, node) = match (table.and_then(|table| table.get(part)), list) {
                (Some(entry), _) => (entry.span, &entry.node),
                (None, Some(list)) => match part.parse::<usize>().ok().and_then(|index| list.get(index)) {
                    Some(node) => (node.span, node),
                    None => return (span, false),
                },
                (None, None) => return (span, false),
            };
            span = Some(if node.table().is_some() { key_span } else { node.span });
            table = node.table();
            list = match &node.value {
                Tree::List(list) => Some(list),
                _ => None,
            };
        }
        (span, true)
    }
}
