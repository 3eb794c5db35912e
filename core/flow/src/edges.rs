//! What stages hand to each other: every edge leads to a stage that makes what it takes, and none in a circle.

use serde_json::Value;

use crate::Kind;
use crate::check::Checker;
use crate::draft::{Draft, DraftEdge};
use crate::findings::{Finding, code};
use crate::graph;
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::Table;

/// Follows every edge to the stage it names.
pub(crate) fn edges(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>], root: &Table) {
    let all: Vec<&str> = root
        .get("stages")
        .and_then(|stages| stages.node.table())
        .map(|stages| stages.0.iter().map(|entry| entry.key.as_str()).collect())
        .unwrap_or_default();
    for index in 0..drafts.len() {
        for edge in written(&drafts[index]) {
            let target = drafts.iter().position(|draft| draft.written.key == edge.name);
            let fits = |&target: &usize| edge.kind.accepts_artifact(drafts[target].kind.kind.produces());
            if let Some(target) = target.filter(fits) {
                drafts[index].edges.push(DraftEdge { key: edge.key, span: edge.span, target });
                continue;
            }
            // A stage that is named but not valid itself is reported there.
            if target.is_some() || !all.contains(&edge.name.as_str()) {
                checker.findings.push(misfit(drafts, index, &edge, target, &all));
            }
            drafts[index].connected = false;
        }
    }
}

/// An edge as it is written: its key, its type, and the stage it names.
struct Written<'a> {
    key: String,
    kind: &'a Kind,
    name: String,
    span: Span,
}

/// The edges of `draft` with a valid value, also those that the user has named.
fn written<'a>(draft: &Draft<'a>) -> Vec<Written<'a>> {
    let mut all = Vec::new();
    for field in &draft.kind.fields {
        let (Some(entry), Some(value)) = (draft.table.get(field.name), draft.values.get(field.name)) else {
            continue;
        };
        match (&field.kind, value) {
            (kind @ Kind::Edge(_), Value::String(name)) => {
                let (key, name, span) = (field.name.to_owned(), name.clone(), entry.node.span);
                all.push(Written { key, kind, name, span });
            }
            (Kind::Map(kind), Value::Object(map)) if kind.is_edge() => {
                for (inner, name) in map {
                    let written = entry.node.table().and_then(|table| table.get(inner));
                    let (Some(written), Some(name)) = (written, name.as_str()) else { continue };
                    let (key, name, span) =
                        (format!("{}.{inner}", field.name), name.to_owned(), written.node.span);
                    all.push(Written { key, kind, name, span });
                }
            }
            _ => {}
        }
    }
    all
}

/// An edge of the stage `index` to no stage, or to `target`, which makes something else; with those that would fit.
fn misfit(
    drafts: &[Draft<'_>],
    index: usize,
    edge: &Written<'_>,
    target: Option<usize>,
    all: &[&str],
) -> Finding {
    let name = edge.name.as_str();
    let fits = |draft: &&Draft<'_>| edge.kind.accepts_artifact(draft.kind.kind.produces());
    let others = drafts.iter().filter(|draft| draft.written.key != drafts[index].written.key);
    let fitting: Vec<String> = others.filter(fits).map(|draft| format!("`{}`", draft.written.key)).collect();
    let fitting = (!fitting.is_empty()).then(|| format!("these fit: {}", fitting.join(", ")));
    let expected = format!("expected {}", edge.kind);
    if let Some(target) = target {
        let made = drafts[target].kind.kind.produces();
        let title = format!("stage `{name}` does not make what `{}` takes", edge.key);
        Finding::error(code::WRONG_ARTIFACT, title)
            .at(edge.span, expected)
            .beside(drafts[target].written.span, format!("this stage makes `{made}`"))
            .help(fitting)
    } else {
        Finding::error(code::UNKNOWN_NAME, format!("there is no stage `{name}`"))
            .at(edge.span, expected)
            .help(did_you_mean(name, all).or(fitting))
    }
}

/// The order in which stages run; those in a circle, or behind one, are reported and come last.
pub(crate) fn order(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>]) -> Vec<usize> {
    let inputs: Vec<Vec<usize>> =
        drafts.iter().map(|draft| draft.edges.iter().map(|edge| edge.target).collect()).collect();
    let (mut order, cycles) = graph::order(&inputs);
    let rest: Vec<usize> = (0..drafts.len()).filter(|index| !order.contains(index)).collect();
    for &index in &rest {
        drafts[index].connected = false;
    }
    order.extend(rest);
    for cycle in cycles {
        let names: Vec<&str> = cycle.iter().map(|&index| drafts[index].written.key.as_str()).collect();
        let title = match names[..] {
            [only] => format!("stage `{only}` waits for itself"),
            _ => format!("stages wait for each other in a circle: {} → {}", names.join(" → "), names[0]),
        };
        let mut finding = Finding::error(code::CYCLE, title);
        for (place, &index) in cycle.iter().enumerate() {
            let next = cycle[(place + 1) % cycle.len()];
            let Some(edge) = drafts[index].edges.iter().find(|edge| edge.target == next) else { continue };
            let label = format!("`{}` waits for `{}`", drafts[index].written.key, drafts[next].written.key);
            finding =
                if place == 0 { finding.at(edge.span, label) } else { finding.beside(edge.span, label) };
        }
        checker.findings.push(finding);
    }
    order
}
