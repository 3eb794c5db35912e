//! What is written, held against the tables of whoever it is written for: sections, and stages of known kinds.

use serde_json::{Map, Value};

use crate::belongs::Within;
use crate::check::{Checker, Owner, good_name};
use crate::findings::{Finding, code};
use crate::registry::{Registry, SectionEntry, StageEntry};
use crate::source::Span;
use crate::suggest::{did_you_mean, nearest};
use crate::syntax::{Entry, Table, Tree};
use crate::{Kind, StageKind, Workflow, matrix};

/// A stage as written, with what was read of it so far.
pub(crate) struct Draft<'a> {
    pub(crate) written: &'a Entry,
    pub(crate) table: &'a Table,
    pub(crate) kind: &'a StageEntry,
    pub(crate) values: Map<String, Value>,
    pub(crate) edges: Vec<DraftEdge>,
    /// Whether every key has a valid value.
    pub(crate) sound: bool,
    /// Whether every edge leads to a stage that fits, in no circle.
    pub(crate) connected: bool,
}

/// An edge of a stage.
pub(crate) struct DraftEdge {
    /// The key: `model`, or `inputs.model` where the user has named it.
    pub(crate) key: String,
    /// Where its value is written.
    pub(crate) span: Span,
    /// The number of the draft it leads to.
    pub(crate) target: usize,
}

/// `[workflow]`, the other sections and `[stages]`, and nothing else.
pub(crate) fn root_keys(checker: &mut Checker<'_>, root: &Table, registry: &Registry) {
    let names: Vec<&str> =
        registry.section_entries().iter().map(|entry| entry.name).chain(["stages", matrix::TABLE]).collect();
    for entry in root.0.iter().filter(|entry| !names.contains(&entry.key.as_str())) {
        let help = if entry.node.table().is_some_and(|table| table.get("uses").is_some()) {
            Some(format!("a stage is written `[stages.{}]`", entry.key))
        } else {
            checker.meant(&entry.key, names.iter().copied())
        };
        let finding = Finding::error(code::UNKNOWN_KEY, format!("unknown table `{}`", entry.key))
            .at(entry.span, "")
            .note(format!("known tables: {}", names.join(", ")))
            .help(help);
        checker.findings.push(finding);
    }
}

/// A section, its values, and whether they are all valid.
pub(crate) type SectionDraft<'a> = (&'a SectionEntry, Map<String, Value>, bool);

pub(crate) fn sections<'a>(
    checker: &mut Checker<'a>,
    workflow: &Workflow,
    registry: &'a Registry,
) -> Vec<SectionDraft<'a>> {
    let mut drafts = Vec::new();
    for entry in registry.section_entries() {
        let before = checker.findings.len();
        let written = workflow.root.get(entry.name);
        let owner = Owner { name: format!("`[{}]`", entry.name), span: written.map(|written| written.span) };
        let empty = Table::default();
        let table = match written.map(|written| (written, written.node.table())) {
            Some((written, None)) => {
                checker.wrong_type(&written.node, &Kind::Free, entry.name);
                &empty
            }
            Some((_, Some(table))) => table,
            None => &empty,
        };
        checker.within = Some(Within { name: owner.name.clone(), fields: &entry.fields });
        let mut values = checker.table(&owner, &entry.fields, table, &[]);
        checker.within = None;
        if entry.name == "workflow" && values.get("name").is_some_and(Value::is_null) {
            let stem = workflow.path.file_stem().map_or("workflow".into(), |stem| stem.to_string_lossy());
            values.insert("name".into(), stem.into());
        }
        drafts.push((entry, values, checker.findings.len() == before));
    }
    drafts
}

/// Every stage whose kind is known, with its keys checked.
pub(crate) fn drafts<'a>(
    checker: &mut Checker<'a>,
    root: &'a Table,
    registry: &'a Registry,
) -> Vec<Draft<'a>> {
    let mut drafts = Vec::new();
    let none = |span| {
        Finding::error(code::MISSING_KEY, "the workflow has no stage")
            .help(Some("a stage is a table: `[stages.records]` with `uses = \"…\"`".into()))
            .at(span, "")
    };
    let Some(written) = root.get("stages") else {
        checker.findings.push(none(Span { source: 0, start: 0, end: 0 }));
        return drafts;
    };
    let Some(stages) = written.node.table() else {
        checker.wrong_type(&written.node, &Kind::Free, "stages");
        return drafts;
    };
    if stages.0.is_empty() {
        checker.findings.push(none(written.span));
    }
    for written in &stages.0 {
        let before = checker.findings.len();
        let Some(table) = written.node.table() else {
            checker.wrong_type(&written.node, &Kind::Free, &written.key);
            let help = checker.meant(&written.key, std::iter::empty());
            if let Some(last) = checker.findings.last_mut().filter(|_| help.is_some()) {
                last.help = help;
            }
            continue;
        };
        let taken = ["lock", "latest"].contains(&written.key.to_ascii_lowercase().as_str());
        if taken || !good_name(&written.key) {
            let finding =
                Finding::error(code::BAD_NAME, format!("`{}` cannot be a stage's name", written.key))
                    .at(written.span, "expected letters, digits, `_` and `-`, beginning with a letter");
            checker.findings.push(finding);
        }
        let Some(kind) = kind(checker, written, table, stages, registry) else { continue };
        let name = format!("stage `{}` ({})", written.key, kind.kind.name());
        let owner = Owner { name, span: Some(written.span) };
        checker.within = Some(Within { name: owner.name.clone(), fields: &kind.fields });
        let mut values = checker.table(&owner, &kind.fields, table, &["uses"]);
        checker.within = None;
        values.insert("uses".into(), kind.kind.name().into());
        let sound = checker.findings.len() == before;
        drafts.push(Draft { written, table, kind, values, edges: Vec::new(), sound, connected: true });
    }
    drafts
}

fn kind<'a>(
    checker: &mut Checker<'_>,
    written: &Entry,
    table: &Table,
    stages: &Table,
    registry: &'a Registry,
) -> Option<&'a StageEntry> {
    let names = || registry.stages().map(StageKind::name);
    let known = || format!("known kinds: {}", names().collect::<Vec<_>>().join(", "));
    let Some(uses) = table.get("uses") else {
        let finding = if checker.sources.overrides(written.span.source) {
            // `--set stages.trian.steps=1` made this stage: its name is what was misspelt.
            let others = stages.0.iter().map(|entry| entry.key.as_str()).filter(|key| *key != written.key);
            Finding::error(code::UNKNOWN_NAME, format!("there is no stage `{}`", written.key))
                .at(written.span, "not in the workflow")
                .help(did_you_mean(&written.key, others))
        } else if let Some(near) = table.0.iter().find(|entry| nearest(&entry.key, ["uses"]) == ["uses"]) {
            Finding::error(
                code::UNKNOWN_KEY,
                format!("unknown key `{}` in stage `{}`", near.key, written.key),
            )
            .at(near.span, "")
            .help(did_you_mean(&near.key, ["uses"]))
        } else {
            let section = registry.section_entries().iter().find(|section| section.name == written.key);
            Finding::error(code::MISSING_KEY, format!("stage `{}` lacks the key `uses`", written.key))
                .at(written.span, "`uses` must be written")
                .note(known())
                .help(
                    section
                        .map(|section| format!("`[{}]` stands beside `[stages]`, not in it", section.name)),
                )
        };
        checker.findings.push(finding);
        return None;
    };
    let Tree::Text(name) = &uses.node.value else {
        checker.wrong_type(&uses.node, &Kind::Text, "uses");
        return None;
    };
    let found = registry.find(name);
    if found.is_none() {
        let elsewhere = registry.known_elsewhere(name).map(String::from);
        let finding = Finding::error(code::UNKNOWN_NAME, format!("unknown kind of stage `{name}`"))
            .at(uses.node.span, "")
            .note(known())
            .help(elsewhere.or_else(|| did_you_mean(name, names())));
        checker.findings.push(finding);
    }
    found
}
