//! The reference of the SDK: its own doc comments, as a page. The sources are as rustfmt leaves them, so that lines tell all.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::project::ROOT;

const PAGE: &str = "docs/src/plugins/reference.md";

const HEAD: &str = "\
# Calls and types

What a plugin in Rust implements and receives: the public items of `fp8flow-sdk`, from the doc comments in `sdk/abi/src`. A test
keeps this page equal to them. `cargo doc` in a project of `fp8flow plugin new` shows the same with links. For C the
reference is the header, `fp8flow_plugin.h`.
";

/// Chapters: a title, and the files whose items it lists.
const CHAPTERS: [(&str, &[&str]); 8] = [
    ("Backend, recipe, linear", &["backend"]),
    ("The arguments of calls", &["call"]),
    ("Tensors", &["tensor"]),
    ("What the engine lends", &["host"]),
    ("Options", &["options"]),
    ("Counters", &["counters"]),
    ("State and errors", &["state", "error"]),
    (
        "Tables of casts",
        &["scaled/cast", "scaled/operand", "scaled/linear", "scaled/scales", "scaled/weights"],
    ),
];

/// A public item with its public members: fields, variants, methods.
struct Item {
    head: String,
    docs: String,
    members: Vec<(String, String)>,
}

#[test]
fn the_reference_is_what_the_doc_comments_say() {
    let mut page = HEAD.to_owned();
    for (title, files) in CHAPTERS {
        writeln!(page, "\n## {title}").unwrap();
        for file in files {
            let source = fs::read_to_string(Path::new(ROOT).join(format!("sdk/abi/src/{file}.rs"))).unwrap();
            for Item { head, docs, members } in items(&source) {
                write!(page, "\n### `{head}`\n\n{docs}\n").unwrap();
                for (i, (head, docs)) in members.iter().enumerate() {
                    let before = if i == 0 { "\n" } else { "" };
                    writeln!(page, "{before}- `{head}`: {docs}").unwrap();
                }
            }
        }
    }
    let path = Path::new(ROOT).join(PAGE);
    if std::env::var_os("FP8FLOW_BLESS").is_some() {
        return fs::write(path, page).unwrap();
    }
    let help = "write it again: FP8FLOW_BLESS=1 cargo test -p fp8flow-tests --test book the_reference";
    assert!(fs::read_to_string(path).is_ok_and(|committed| committed == page), "{help}");
}

/// The public items of a file, with what its inherent `impl`s add to them.
fn items(source: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut docs = String::new();
    let mut lines = source.lines().take_while(|line| *line != "#[cfg(test)]");
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("///") {
            add(&mut docs, text);
            continue;
        }
        let of =
            line.strip_prefix("impl").filter(|_| line.ends_with('{') && !line.contains(" for ")).map(name);
        let kind = ["pub trait ", "pub struct ", "pub enum "].iter().find(|kind| line.starts_with(**kind));
        if let Some(kind) = kind {
            let head = line.trim_start_matches("pub ").trim_end_matches(['{', ';', ' ']).to_owned();
            let members = if line.ends_with('{') { members(&mut lines, kind) } else { Vec::new() };
            // The fields of a tuple, unless they are public.
            let head = head
                .split_once('(')
                .filter(|(_, fields)| !fields.starts_with("pub "))
                .map_or(&*head, |(head, _)| head);
            let head = head.to_owned();
            items.push(Item { head, docs: linked(&docs), members });
        } else if let Some(of) = of {
            let found = members(&mut lines, "impl");
            let owner = items.iter_mut().find(|item| item.head.split(' ').nth(1).map(name) == Some(of));
            if let Some(item) = owner {
                item.members.extend(found);
            }
        }
        if !line.starts_with("#[") {
            docs.clear();
        }
    }
    items
}

/// The members up to the closing brace: what stands one step in, is documented and, where that is asked, public.
fn members<'a>(lines: &mut impl Iterator<Item = &'a str>, kind: &str) -> Vec<(String, String)> {
    let mut members = Vec::new();
    let (mut docs, mut inner) = (String::new(), false);
    while let Some(line) = lines.next().filter(|line| *line != "}") {
        let Some(line) = line.strip_prefix("    ") else { continue };
        // The fields of a variant.
        if inner
            && let Some(field) = line.strip_prefix("    ").and_then(|line| line.strip_suffix(','))
            && let Some((head, _)) = members.last_mut()
        {
            let head: &mut String = head;
            *head = match head.strip_suffix(" }") {
                Some(fields) => format!("{fields}, {field} }}"),
                None => format!("{head} {{ {field} }}"),
            };
        }
        // The bodies of functions.
        if inner || line.starts_with([' ', ')', '}']) {
            inner = inner && !line.starts_with('}');
            continue;
        }
        if let Some(text) = line.strip_prefix("///") {
            add(&mut docs, text);
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let public = matches!(kind, "pub trait " | "pub enum ") || line.starts_with("pub ");
            let mut head = line.trim_start_matches("pub ").to_owned();
            while head.ends_with(['(', '<']) || (head.starts_with("fn ") && !head.ends_with(['{', ';', '}']))
            {
                let Some(next) = lines.next() else { break };
                let next = next.trim();
                let gap = if head.ends_with('(') || next.starts_with(')') { "" } else { " " };
                head = format!(
                    "{}{gap}{next}",
                    if next.starts_with(')') { head.trim_end_matches(',') } else { &head }
                );
            }
            inner = head.ends_with('{') && kind == "pub enum ";
            let default = kind == "pub trait " && head.ends_with('{');
            let head = head.trim_end_matches("{}").trim_end_matches([',', ';', '{', ' ']);
            // The value of a constant is no part of its face.
            let head = head.split_once(" = ").map_or(head, |(head, _)| head);
            if public && !docs.is_empty() && !head.is_empty() {
                let default = if default { " May be left out." } else { "" };
                members.push((head.to_owned(), format!("{}{default}", in_one_line(&linked(&docs)))));
            }
            docs.clear();
        }
    }
    members
}

/// Paragraphs in a row; a heading begins the sentence behind it.
fn in_one_line(docs: &str) -> String {
    let lines = docs.lines().filter(|line| !line.is_empty());
    let lines =
        lines.map(|line| line.strip_prefix("# ").map_or_else(|| line.to_owned(), |head| format!("{head}:")));
    lines.collect::<Vec<_>>().join(" ")
}

fn add(docs: &mut String, text: &str) {
    docs.push_str(text.strip_prefix(' ').unwrap_or(text));
    docs.push('\n');
}

/// The name that begins `text`, behind lifetimes.
fn name(text: &str) -> &str {
    let text = text.trim_start();
    let text =
        text.strip_prefix('<').map_or(text, |rest| rest.split_once("> ").map_or(rest, |(_, rest)| rest));
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(text)
}

/// Doc comments with links to items as code alone.
fn linked(docs: &str) -> String {
    let mut text = String::new();
    let mut rest = docs.trim_end();
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((item, after)) = link.split_once("`]") else { break };
        let after = after.strip_prefix('(').and_then(|to| Some(to.split_once(')')?.1)).unwrap_or(after);
        write!(text, "{before}`{}`", item.trim_start_matches("crate::")).unwrap();
        rest = after;
    }
    text + rest
}
