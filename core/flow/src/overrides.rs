//! `--set stages.train.optimizer.lr=1e-4`: a dotted key and a value, laid over the file.

use crate::findings::{Finding, code};
use crate::source::{Sources, Span};
use crate::syntax::{self, Entry, Node, Table, Tree};

/// Lays the assignment `text` over `root`. Tables on the way are entered or made; the value replaces what was there.
pub(crate) fn apply(
    root: &mut Table,
    sources: &mut Sources,
    number: usize,
    text: &str,
) -> Result<(), Vec<Finding>> {
    let source = sources.add(format!("<--set #{number}>"), text.to_owned(), true);
    let (path, value) = parse(sources, source)?;
    set(root, &path, value)
}

/// Puts `value` at the end of `path`. Tables on the way are entered or made.
pub(crate) fn set(root: &mut Table, path: &[Entry], value: Node) -> Result<(), Vec<Finding>> {
    let Some((last, parents)) = path.split_last() else { return Ok(()) };
    let mut table = root;
    for entry in parents {
        table = enter(table, entry).map_err(|there| {
            vec![
                Finding::error(
                    code::WRONG_TYPE,
                    format!("`{}` is {}, not a table", entry.key, there.describe()),
                )
                .at(entry.span, "this key has no keys of its own")
                .beside(there.span, format!("{} is written here", there.describe())),
            ]
        })?;
    }
    let entry = Entry { node: value, ..last.clone() };
    match table.0.iter_mut().find(|there| there.key == entry.key) {
        Some(there) => *there = entry,
        None => table.0.push(entry),
    }
    Ok(())
}

/// The inner table `entry.key` of `table`, made if it is not there.
fn enter<'t>(table: &'t mut Table, entry: &Entry) -> Result<&'t mut Table, Node> {
    let at = table.0.iter().position(|there| there.key == entry.key).unwrap_or_else(|| {
        table.0.push(Entry {
            node: Node { span: entry.span, value: Tree::Table(Table::default()) },
            ..entry.clone()
        });
        table.0.len() - 1
    });
    let node = &mut table.0[at].node;
    match node.value {
        Tree::Table(ref mut inner) => Ok(inner),
        _ => Err(node.clone()),
    }
}

/// The keys on the way to the value (their nodes mean nothing), and the value.
fn parse(sources: &Sources, source: usize) -> Result<(Vec<Entry>, Node), Vec<Finding>> {
    let text = sources.text(source);
    let whole = Span { source, start: 0, end: text.len() };
    let refused = |label: &str| {
        vec![Finding::error(code::BAD_OVERRIDE, "expected `key=value`").at(whole, label).help(Some(
            "a key is dotted and a value is TOML, as in `--set stages.train.optimizer.lr=1e-4`".into(),
        ))]
    };
    let Some(equals) = equals_sign(text) else { return Err(refused("no `=` in it")) };
    let key = &text[..equals];
    if key.contains('\n') || key.contains('\r') {
        return Err(refused("a key is one line"));
    }
    let mut scratch = Sources::default();
    let keys = (0..source).map(|_| scratch.add(String::new(), String::new(), true)).count();
    scratch.add(String::new(), format!("{key}=0"), true);
    let mut path = Vec::new();
    let mut table =
        syntax::document(&scratch, keys).map_err(|_| refused("the key is not a dotted TOML key"))?;
    while let Some(mut entry) = table.0.pop() {
        table = match std::mem::replace(&mut entry.node.value, Tree::Bool(false)) {
            Tree::Table(inner) => inner,
            _ => Table::default(),
        };
        path.push(entry);
    }
    if path.is_empty() {
        return Err(refused("no key before `=`"));
    }
    Ok((path, value(sources, source, equals + 1)?))
}

/// The value after `=`: TOML, or a bare word.
fn value(sources: &Sources, source: usize, start: usize) -> Result<Node, Vec<Finding>> {
    let text = &sources.text(source)[start..];
    let word = text.trim();
    let start = start + text.len() - text.trim_start().len();
    match syntax::value(sources, source, start) {
        Ok(node) => Ok(node),
        Err(findings) if word.starts_with(['[', '{', '"', '\'']) => Err(findings),
        Err(_) => {
            let span = Span { source, start, end: start + word.len() };
            Ok(Node { span, value: Tree::Text(word.to_owned()) })
        }
    }
}

/// The first `=` outside quotes.
fn equals_sign(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}
