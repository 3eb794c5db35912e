//! From syntax to plan: all keys, all edges, then what each section and stage says. Stops for nothing before the end,
//! so that one look at a workflow finds everything that is wrong with it.

use serde_json::{Map, Value};

use crate::check::{Checker, Owner};
use crate::findings::{Finding, Findings, code};
use crate::graph;
use crate::plan::{self, Plan, PlannedSection, PlannedStage};
use crate::plan_context::{Issue, PlanCx};
use crate::registry::{Registry, StageEntry};
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::{Entry, Table};
use crate::{Error, Field, Kind, Params, Planned, Workflow};

/// A stage as written, with what was read of it so far.
struct Draft<'a> {
    written: &'a Entry,
    table: &'a Table,
    kind: &'a StageEntry,
    values: Map<String, Value>,
    /// Its edges: the key, and the number of the draft it leads to.
    edges: Vec<(&'static str, usize)>,
    /// Whether every key has a valid value and every edge leads somewhere.
    sound: bool,
}

pub(crate) fn plan(workflow: &Workflow, registry: &Registry) -> Result<Plan, Error> {
    let mut checker = Checker { sources: &workflow.sources, findings: Vec::new() };
    root_keys(&mut checker, &workflow.root, registry);
    let sections = sections(&mut checker, workflow, registry);
    let mut drafts = drafts(&mut checker, &workflow.root, registry);
    edges(&mut checker, &mut drafts, &workflow.root);
    let order = order(&mut checker, &mut drafts);

    let mut planner =
        Planner { workflow, sections: Vec::new(), stages: Vec::new(), findings: checker.findings };
    let identity = plan::identity(
        sections.iter().map(|(entry, values, _)| (entry.name, &entry.fields[..], values)),
        drafts.iter().map(|draft| (draft.written.key.as_str(), &draft.kind.fields[..], &draft.values)),
    );
    for (entry, values, sound) in sections {
        planner.section(entry, values, sound);
    }
    for index in order {
        planner.stage(&drafts, index);
    }
    planner.finish(identity)
}

/// `[workflow]`, the other sections and `[stages]`, and nothing else.
fn root_keys(checker: &mut Checker<'_>, root: &Table, registry: &Registry) {
    let names: Vec<&str> =
        registry.section_entries().iter().map(|entry| entry.name).chain(["stages"]).collect();
    for entry in root.0.iter().filter(|entry| !names.contains(&entry.key.as_str())) {
        let finding = Finding::error(code::UNKNOWN_KEY, format!("unknown table `{}`", entry.key))
            .at(entry.span, "")
            .note(format!("known tables: {}", names.join(", ")))
            .help(did_you_mean(&entry.key, &names));
        checker.findings.push(finding);
    }
}

type SectionDraft<'a> = (&'a crate::registry::SectionEntry, Map<String, Value>, bool);

fn sections<'a>(
    checker: &mut Checker<'_>,
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
                checker.wrong_type(&written.node, &Kind::Free, Some(entry.name));
                &empty
            }
            Some((_, Some(table))) => table,
            None => &empty,
        };
        let mut values = checker.table(&owner, &entry.fields, table, &[]);
        if entry.name == "workflow" && values.get("name").is_some_and(Value::is_null) {
            let stem = workflow.path.file_stem().map_or("workflow".into(), |stem| stem.to_string_lossy());
            values.insert("name".into(), stem.into());
        }
        drafts.push((entry, values, checker.findings.len() == before));
    }
    drafts
}

/// Every stage whose kind is known, with its keys checked.
fn drafts<'a>(checker: &mut Checker<'_>, root: &'a Table, registry: &'a Registry) -> Vec<Draft<'a>> {
    let mut drafts = Vec::new();
    let Some(stages) = root.get("stages") else {
        let finding = Finding::error(code::MISSING_KEY, "the workflow has no stage")
            .help(Some("a stage is a table: `[stages.records]` with `uses = \"…\"`".into()));
        checker.findings.push(finding.at(Span { source: 0, start: 0, end: 0 }, ""));
        return drafts;
    };
    let Some(stages) = stages.node.table() else {
        checker.wrong_type(&stages.node, &Kind::Free, Some("stages"));
        return drafts;
    };
    for written in &stages.0 {
        let before = checker.findings.len();
        let Some(table) = written.node.table() else {
            checker.wrong_type(&written.node, &Kind::Free, Some(&written.key));
            continue;
        };
        if !good_name(&written.key) {
            let finding =
                Finding::error(code::BAD_NAME, format!("`{}` cannot be a stage's name", written.key))
                    .at(written.span, "expected letters, digits, `_` and `-`, beginning with a letter");
            checker.findings.push(finding);
        }
        let Some(kind) = kind(checker, written, table, stages, registry) else { continue };
        let name = format!("stage `{}` ({})", written.key, kind.kind.name());
        let owner = Owner { name, span: Some(written.span) };
        let mut values = checker.table(&owner, &kind.fields, table, &["uses"]);
        values.insert("uses".into(), kind.kind.name().into());
        let sound = checker.findings.len() == before;
        drafts.push(Draft { written, table, kind, values, edges: Vec::new(), sound });
    }
    drafts
}

/// A stage's name is the name of its folder in the run.
fn good_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(inner)
        && name.len() <= 64
        && !["lock", "latest"].contains(&name.to_ascii_lowercase().as_str())
}

fn kind<'a>(
    checker: &mut Checker<'_>,
    written: &Entry,
    table: &Table,
    stages: &Table,
    registry: &'a Registry,
) -> Option<&'a StageEntry> {
    let names = || registry.stages().map(crate::StageKind::name);
    let known = || format!("known kinds: {}", names().collect::<Vec<_>>().join(", "));
    let Some(uses) = table.get("uses") else {
        // `--set stages.trian.steps=1` made this stage: its name is what was misspelt.
        let finding = if checker.sources.overrides(written.span.source) {
            let others = stages.0.iter().map(|entry| entry.key.as_str()).filter(|key| *key != written.key);
            Finding::error(code::UNKNOWN_NAME, format!("there is no stage `{}`", written.key))
                .at(written.span, "not in the workflow")
                .help(did_you_mean(&written.key, others))
        } else {
            Finding::error(code::MISSING_KEY, format!("stage `{}` lacks the key `uses`", written.key))
                .at(written.span, "`uses` must be written")
                .note(known())
        };
        let near = table.0.iter().find(|entry| did_you_mean(&entry.key, ["uses"]).is_some());
        checker.findings.push(match near {
            Some(near) if !checker.sources.overrides(written.span.source) => {
                finding.beside(near.span, "did you mean `uses`?")
            }
            _ => finding,
        });
        return None;
    };
    let crate::syntax::Tree::Text(name) = &uses.node.value else {
        checker.wrong_type(&uses.node, &Kind::Text, Some("uses"));
        return None;
    };
    let found = registry.find(name);
    if found.is_none() {
        let finding = Finding::error(code::UNKNOWN_NAME, format!("unknown kind of stage `{name}`"))
            .at(uses.node.span, "")
            .note(known())
            .help(did_you_mean(name, names()));
        checker.findings.push(finding);
    }
    found
}

/// Follows every edge to the stage it names.
fn edges(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>], root: &Table) {
    let all: Vec<&str> = root
        .get("stages")
        .and_then(|stages| stages.node.table())
        .map(|stages| stages.0.iter().map(|entry| entry.key.as_str()).collect())
        .unwrap_or_default();
    for index in 0..drafts.len() {
        let (kind, table, own) = (drafts[index].kind, drafts[index].table, drafts[index].written);
        for field in &kind.fields {
            let (Kind::Edge(accepts), Some(written)) = (&field.kind, table.get(field.name)) else { continue };
            let Some(name) = drafts[index].values.get(field.name).and_then(Value::as_str) else { continue };
            let target = drafts.iter().position(|draft| draft.written.key == name);
            let finding = match target {
                // Named, but not valid itself: reported there.
                None if all.contains(&name) => {
                    drafts[index].sound = false;
                    continue;
                }
                None => {
                    let fitting = drafts.iter().filter(|draft| accepts.contains(&draft.kind.kind.produces()));
                    let fitting: Vec<&str> = fitting.map(|draft| draft.written.key.as_str()).collect();
                    let help = did_you_mean(name, &all).or_else(|| match fitting[..] {
                        [only] if only != own.key => Some(format!("`{only}` would fit")),
                        _ => None,
                    });
                    Finding::error(code::UNKNOWN_NAME, format!("there is no stage `{name}`"))
                        .at(written.node.span, format!("expected {}", field.kind))
                        .help(help)
                }
                Some(target) if !accepts.contains(&drafts[target].kind.kind.produces()) => {
                    let made = drafts[target].kind.kind.produces();
                    let fitting = drafts.iter().filter(|draft| accepts.contains(&draft.kind.kind.produces()));
                    let names: Vec<String> = fitting
                        .filter(|draft| draft.written.key != own.key)
                        .map(|draft| format!("`{}`", draft.written.key))
                        .collect();
                    let help = if names.is_empty() {
                        None
                    } else {
                        Some(format!("these fit: {}", names.join(", ")))
                    };
                    Finding::error(
                        code::WRONG_ARTIFACT,
                        format!("stage `{name}` does not make what `{}` takes", field.name),
                    )
                    .at(written.node.span, format!("expected {}", field.kind))
                    .beside(drafts[target].written.span, format!("this stage makes `{made}`"))
                    .help(help)
                }
                Some(target) => {
                    drafts[index].edges.push((field.name, target));
                    continue;
                }
            };
            drafts[index].sound = false;
            checker.findings.push(finding);
        }
    }
}

/// The order in which stages run; those in a circle are reported and left out.
fn order(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>]) -> Vec<usize> {
    let inputs: Vec<Vec<usize>> =
        drafts.iter().map(|draft| draft.edges.iter().map(|&(_, target)| target).collect()).collect();
    let (order, cycles) = graph::order(&inputs);
    for cycle in cycles {
        let names: Vec<&str> = cycle.iter().map(|&index| drafts[index].written.key.as_str()).collect();
        let title = match names[..] {
            [only] => format!("stage `{only}` waits for itself"),
            _ => format!("stages wait for each other in a circle: {} → {}", names.join(" → "), names[0]),
        };
        let mut finding = Finding::error(code::CYCLE, title);
        for (place, &index) in cycle.iter().enumerate() {
            let next = cycle[(place + 1) % cycle.len()];
            let edge = drafts[index].edges.iter().find(|(_, target)| *target == next).map(|(edge, _)| *edge);
            let Some(written) = edge.and_then(|edge| drafts[index].table.get(edge)) else { continue };
            let label = format!("`{}` waits for `{}`", drafts[index].written.key, drafts[next].written.key);
            finding = if place == 0 {
                finding.at(written.node.span, label)
            } else {
                finding.beside(written.node.span, label)
            };
        }
        checker.findings.push(finding);
    }
    order
}

/// Asks sections and stages about their part.
struct Planner<'a> {
    workflow: &'a Workflow,
    sections: Vec<PlannedSection>,
    stages: Vec<PlannedStage>,
    findings: Vec<Finding>,
}

impl Planner<'_> {
    fn section(&mut self, entry: &crate::registry::SectionEntry, values: Map<String, Value>, sound: bool) {
        let written = self.workflow.root.get(entry.name);
        let place = Place {
            span: written.map(|written| written.span),
            table: written.and_then(|written| written.node.table()),
        };
        let mut params = Params::new(values.into(), &self.workflow.folder);
        if !sound || !self.paths_exist(&entry.fields, &params, &place) {
            return;
        }
        let hook =
            |cx: &mut PlanCx<'_>| entry.hook.as_ref().map_or_else(Planned::default, |hook| hook.plan(cx));
        let Some(planned) = self.ask(&mut params, &[], &place, hook) else { return };
        let (facts, lines) = (planned.facts, planned.lines);
        self.sections.push(PlannedSection { name: entry.name.into(), params, facts, lines });
    }

    fn stage(&mut self, drafts: &[Draft<'_>], index: usize) {
        let draft = &drafts[index];
        let place = Place { span: Some(draft.written.span), table: Some(draft.table) };
        let mut values = draft.values.clone();
        values.shift_remove("uses");
        let mut params = Params::new(values.into(), &self.workflow.folder);
        if !draft.sound || !self.paths_exist(&draft.kind.fields, &params, &place) {
            return;
        }
        let inputs: Vec<(String, String)> = draft
            .edges
            .iter()
            .map(|&(edge, target)| (edge.to_owned(), drafts[target].written.key.clone()))
            .collect();
        let kind = &*draft.kind.kind;
        let Some(planned) = self.ask(&mut params, &inputs, &place, |cx| kind.plan(cx)) else { return };
        self.stages.push(PlannedStage {
            name: draft.written.key.clone(),
            uses: kind.name().into(),
            produces: kind.produces().into(),
            params,
            inputs,
            facts: planned.facts,
            lines: planned.lines,
        });
    }

    /// Calls `hook` and files its objections. `None` if there was one that is no mere warning.
    fn ask(
        &mut self,
        params: &mut Params,
        inputs: &[(String, String)],
        place: &Place<'_>,
        hook: impl FnOnce(&mut PlanCx<'_>) -> Planned,
    ) -> Option<Planned> {
        let mut cx =
            PlanCx { params, inputs, stages: &self.stages, sections: &self.sections, issues: Vec::new() };
        let planned = hook(&mut cx);
        let (valid, issues) = (!cx.has_errors(), cx.issues);
        self.findings.extend(issues.into_iter().map(|issue| place.finding(issue)));
        if !valid {
            return None;
        }
        for (key, value) in &planned.derived {
            params.set(key, value.clone());
        }
        Some(planned)
    }

    /// Whether every path that must exist does.
    fn paths_exist(&mut self, fields: &[Field], params: &Params, place: &Place<'_>) -> bool {
        let before = self.findings.len();
        for (key, path) in existing_paths(fields, params.json(), "") {
            let full = params.base().join(&path);
            if full.try_exists().is_ok_and(|there| there) {
                continue;
            }
            let why = match full.metadata() {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => error.to_string(),
                _ => "no such file or folder".into(),
            };
            let mut issue = Issue::new(&key, format!("{}: {why}", full.display()));
            if let (Some(name), Some(parent)) = (full.file_name(), full.parent()) {
                let names = std::fs::read_dir(parent).into_iter().flatten().flatten().take(10_000);
                let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
                issue.did_you_mean(&name.to_string_lossy(), names);
            }
            issue.code(code::NO_SUCH_PATH);
            self.findings.push(place.finding(issue));
        }
        self.findings.len() == before
    }

    fn finish(self, identity: String) -> Result<Plan, Error> {
        let findings = Findings::new(self.workflow.sources.clone(), self.findings);
        if findings.errors() > 0 {
            return Err(Box::new(findings).into());
        }
        let name = self.sections.iter().find(|section| section.name == "workflow");
        let name = name.map_or(String::new(), |section| section.params.get("name"));
        Ok(Plan {
            name,
            path: self.workflow.path.clone(),
            folder: self.workflow.folder.clone(),
            sections: self.sections,
            stages: self.stages,
            identity,
            warnings: findings,
        })
    }
}

/// Keys and values of the paths that must exist and are given.
fn existing_paths(fields: &[Field], values: &Map<String, Value>, prefix: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for field in fields {
        let key = format!("{prefix}{}", field.name);
        match (&field.kind, values.get(field.name)) {
            (Kind::Path { exists: true }, Some(Value::String(path))) => paths.push((key, path.clone())),
            (Kind::Table(inner), Some(Value::Object(values))) => {
                paths.extend(existing_paths(inner, values, &format!("{key}.")));
            }
            _ => {}
        }
    }
    paths
}

/// Where a section or stage stands in the text.
struct Place<'a> {
    span: Option<Span>,
    table: Option<&'a Table>,
}

impl Place<'_> {
    /// An objection at the value of its key, or as near to it as anything is written.
    fn finding(&self, issue: Issue) -> Finding {
        let mut finding =
            Finding::error(issue.code.unwrap_or(code::OBJECTION), issue.message).help(issue.help);
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
        let mut list: Option<&[crate::syntax::Node]> = None;
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
                crate::syntax::Tree::List(list) => Some(list),
                _ => None,
            };
        }
        (span, true)
    }
}
