//! From syntax to plan: all keys, all edges, then what each section and stage says. Stops for nothing before the end,
//! so that one look at a workflow finds everything that is wrong with it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};

use crate::check::Checker;
use crate::draft::{self, Draft};
use crate::edges;
use crate::findings::{Finding, Findings, code};
use crate::panic::words_of;
use crate::place::Place;
use crate::places::Places;
use crate::plan::{self, Plan, PlannedSection, PlannedStage, counting};
use crate::plan_context::{Issue, PlanCx};
use crate::registry::{Registry, SectionEntry};
use crate::{Class, Error, Field, Kind, Params, Planned, Workflow, digest, extent};

/// Plans `workflow`, or says everything that is wrong with it.
pub(crate) fn plan(workflow: &Workflow, registry: &Registry) -> Result<Plan, Error> {
    let mut checker = Checker {
        sources: &workflow.sources,
        root: &workflow.root,
        registry,
        within: None,
        findings: Vec::new(),
    };
    draft::root_keys(&mut checker, &workflow.root, registry);
    let sections = draft::sections(&mut checker, workflow, registry);
    let mut drafts = draft::drafts(&mut checker, &workflow.root, registry);
    edges::edges(&mut checker, &mut drafts, &workflow.root);
    let order = edges::order(&mut checker, &mut drafts);

    let common = sections_digest(&sections);
    let mut planner =
        Planner { workflow, common, sections: Vec::new(), stages: Vec::new(), findings: checker.findings };
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

/// Asks sections and stages about their part.
struct Planner<'a> {
    workflow: &'a Workflow,
    /// Digest of the sections.
    common: String,
    sections: Vec<PlannedSection>,
    stages: Vec<PlannedStage>,
    findings: Vec<Finding>,
}

impl Planner<'_> {
    fn section(&mut self, entry: &SectionEntry, values: Map<String, Value>, sound: bool) {
        let written = self.workflow.root.get(entry.name);
        let place = Place {
            span: written.map(|written| written.span),
            table: written.and_then(|written| written.node.table()),
        };
        let mut params = Params::new(values.into(), &self.workflow.folder);
        let there = self.paths_exist(&entry.fields, &params, &place);
        if !sound || !there {
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
        let there = self.paths_exist(&draft.kind.fields, &params, &place);
        if !draft.sound || !there {
            return;
        }
        let inputs: Vec<(String, String)> = draft
            .edges
            .iter()
            .map(|edge| (edge.key.clone(), drafts[edge.target].written.key.clone()))
            .collect();
        let kind = &*draft.kind.kind;
        let planned = self.ask(&mut params, &inputs, &place, |cx| kind.plan(cx));
        let Some(planned) = planned.filter(|_| draft.connected) else { return };
        let lineage = self.lineage(draft, &params, &inputs);
        self.stages.push(PlannedStage {
            name: draft.written.key.clone(),
            uses: kind.name().into(),
            produces: kind.produces().into(),
            params,
            inputs,
            facts: planned.facts,
            lines: planned.lines,
            lineage,
        });
    }

    /// Names of stages do not count: what they stand for does. Nor does where a stage ends that others may go on from.
    fn lineage(&self, draft: &Draft<'_>, params: &Params, inputs: &[(String, String)]) -> String {
        let mut values = counting(&draft.kind.fields, &draft.values);
        if let Some((key, _)) = extent::open(&*draft.kind.kind, params) {
            values.remove(key);
        }
        let named = draft
            .kind
            .fields
            .iter()
            .filter(|field| matches!(field.kind, Kind::Map(_)) && field.kind.is_edge());
        named.for_each(|field| _ = values.shift_remove(field.name));
        for (edge, name) in inputs {
            let before = self.stages.iter().find(|stage| stage.name == *name);
            values.insert(edge.clone(), before.map(|stage| stage.lineage.clone()).into());
        }
        digest::of_json(&json!({ "sections": self.common, "stage": values }))
    }

    /// Calls `hook` and files its objections. `None` if there was one that is no mere warning.
    fn ask(
        &mut self,
        params: &mut Params,
        inputs: &[(String, String)],
        place: &Place<'_>,
        hook: impl FnOnce(&mut PlanCx<'_>) -> Planned,
    ) -> Option<Planned> {
        let mut cx = PlanCx {
            params,
            runs: &self.workflow.runs,
            inputs,
            stages: &self.stages,
            sections: &self.sections,
            issues: Vec::new(),
        };
        let planned = catch_unwind(AssertUnwindSafe(|| hook(&mut cx))).unwrap_or_else(|panic| {
            cx.error("", words_of(&*panic)).label("while this was planned").class(Class::Bug);
            Planned::default()
        });
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
            let mut issue = Issue::new(&key, format!("{why}: {}", full.display()));
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
        let name: String = name.map_or(String::new(), |section| section.params.get("name"));
        let name = self.workflow.point.iter().fold(name, |name, point| format!("{name}@{point}"));
        Ok(Plan {
            name,
            path: self.workflow.path.clone(),
            folder: self.workflow.folder.clone(),
            text: self.workflow.sources.text(0).to_owned(),
            sets: self.workflow.sources.sets(),
            sections: self.sections,
            stages: self.stages,
            identity,
            point: self.workflow.point.clone(),
            only: Vec::new(),
            warnings: findings,
            places: Places::new(self.workflow.sources.clone(), &self.workflow.root),
        })
    }
}

/// Digest of what the sections say, all but the workflow's name.
fn sections_digest(sections: &[draft::SectionDraft<'_>]) -> String {
    let values = sections.iter().map(|(entry, values, _)| {
        let mut values = counting(&entry.fields, values);
        if entry.name == "workflow" {
            values.remove("name");
        }
        (entry.name.to_owned(), Value::from(values))
    });
    digest::of_json(&Value::from(values.collect::<Map<_, _>>()))
}

/// Keys and values of the paths that must exist and are given.
pub(crate) fn existing_paths(
    fields: &[Field],
    values: &Map<String, Value>,
    prefix: &str,
) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for field in fields {
        let key = format!("{prefix}{}", field.name);
        match (&field.kind, values.get(field.name)) {
            (Kind::Path { exists: true }, Some(Value::String(path))) => paths.push((key, path.clone())),
            (Kind::List { of, .. }, Some(Value::Array(list)))
                if matches!(**of, Kind::Path { exists: true }) =>
            {
                let path =
                    |(i, path): (usize, &Value)| Some((format!("{key}.{i}"), path.as_str()?.to_owned()));
                paths.extend(list.iter().enumerate().filter_map(path));
            }
            (Kind::Table(inner), Some(Value::Object(values))) => {
                paths.extend(existing_paths(inner, values, &format!("{key}.")));
            }
            (kind, Some(Value::Array(list))) => {
                let tables = kind.inner().into_iter().flat_map(|inner| {
                    list.iter().enumerate().filter_map(move |(i, value)| Some((inner, i, value.as_object()?)))
                });
                for (inner, i, values) in tables {
                    paths.extend(existing_paths(inner, values, &format!("{key}.{i}.")));
                }
            }
            _ => {}
        }
    }
    paths
}
