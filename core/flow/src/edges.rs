//! What stages hand to each other: every edge leads to a stage that makes what it takes, and none in a circle.

use serde_json::Value;

use crate::check::Checker;
use crate::draft::Draft;
use crate::findings::{Finding, code};
use crate::graph;
use crate::suggest::did_you_mean;
use crate::syntax::{Entry, Table};
use crate::{Field, Kind};

/// Follows every edge to the stage it names.
pub(crate) fn edges(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>], root: &Table) {
    let all: Vec<&str> = root
        .get("stages")
        .and_then(|stages| stages.node.table())
        .map(|stages| stages.0.iter().map(|entry| entry.key.as_str()).collect())
        .unwrap_or_default();
    for index in 0..drafts.len() {
        let (kind, table) = (drafts[index].kind, drafts[index].table);
        for field in &kind.fields {
            let (Kind::Edge(_), Some(written)) = (&field.kind, table.get(field.name)) else { continue };
            let Some(name) = drafts[index].values.get(field.name).and_then(Value::as_str) else { continue };
            let target = drafts.iter().position(|draft| draft.written.key == name);
            let fits = |&target: &usize| field.kind.accepts_artifact(drafts[target].kind.kind.produces());
            if let Some(target) = target.filter(fits) {
                drafts[index].edges.push((field.name, target));
                continue;
            }
            // A stage that is named but not valid itself is reported there.
            if target.is_some() || !all.contains(&name) {
                checker.findings.push(misfit(drafts, index, field, written, target, &all));
            }
            drafts[index].connected = false;
        }
    }
}

/// An edge of the stage `index` to no stage, or to `target`, which makes something else; with those that would fit.
fn misfit(
    drafts: &[Draft<'_>],
    index: usize,
    field: &Field,
    written: &Entry,
    target: Option<usize>,
    all: &[&str],
) -> Finding {
    let name = drafts[index].values.get(field.name).and_then(Value::as_str).unwrap_or_default();
    let fits = |draft: &&Draft<'_>| field.kind.accepts_artifact(draft.kind.kind.produces());
    let others = drafts.iter().filter(|draft| draft.written.key != drafts[index].written.key);
    let fitting: Vec<String> = others.filter(fits).map(|draft| format!("`{}`", draft.written.key)).collect();
    let fitting = (!fitting.is_empty()).then(|| format!("these fit: {}", fitting.join(", ")));
    let expected = format!("expected {}", field.kind);
    if let Some(target) = target {
        let made = drafts[target].kind.kind.produces();
        let title = format!("stage `{name}` does not make what `{}` takes", field.name);
        Finding::error(code::WRONG_ARTIFACT, title)
            .at(written.node.span, expected)
            .beside(drafts[target].written.span, format!("this stage makes `{made}`"))
            .help(fitting)
    } else {
        Finding::error(code::UNKNOWN_NAME, format!("there is no stage `{name}`"))
            .at(written.node.span, expected)
            .help(did_you_mean(name, all).or(fitting))
    }
}

/// The order in which stages run; those in a circle, or behind one, are reported and come last.
pub(crate) fn order(checker: &mut Checker<'_>, drafts: &mut [Draft<'_>]) -> Vec<usize> {
    let inputs: Vec<Vec<usize>> =
        drafts.iter().map(|draft| draft.edges.iter().map(|&(_, target)| target).collect()).collect();
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
