//! `[matrix]`: one workflow for every combination of values. Each is a workflow like any other, with a run of its own; what
//! they have in common is made once and stored.

use crate::findings::{Finding, Findings, code};
use crate::source::{Sources, Span};
use crate::suggest::did_you_mean;
use crate::syntax::{Entry, Node, Table, Tree};
use crate::{Error, Plan, Registry, Workflow, overrides};

/// The name of the table.
pub(crate) const TABLE: &str = "matrix";

/// What stands for the point's name in texts of the workflow.
const PLACE: &str = "{point}";

/// More than this is a slip.
const MOST: usize = 1000;

/// One key with its values.
struct Axis {
    /// The keys on the way to it.
    path: Vec<Entry>,
    values: Vec<Node>,
}

impl Workflow {
    /// The names of the points of its matrix, `lr=1e-4` or `lr=1e-4,recipe=rowwise`; none without a matrix.
    pub fn points(&self) -> Result<Vec<String>, Error> {
        Ok(expand(self)?.into_iter().filter_map(|workflow| workflow.point).collect())
    }

    /// Plans every point of its matrix, or only the one called `only`; without a matrix there is one plan, and it has no name.
    pub fn plans(&self, registry: &Registry, only: Option<&str>) -> Result<Vec<Plan>, Error> {
        let workflows = expand(self)?;
        let points: Vec<&str> = workflows.iter().filter_map(|workflow| workflow.point.as_deref()).collect();
        if let Some(name) = only.filter(|name| !points.contains(name)) {
            let place = self.root.get(TABLE).map(|entry| entry.span);
            let title = if points.is_empty() {
                format!("there is no point `{name}`: the workflow has no [matrix]")
            } else {
                format!("[matrix] has no point `{name}`")
            };
            let mut finding = Finding::error(code::UNKNOWN_NAME, title).help(did_you_mean(name, &points));
            if !points.is_empty() {
                finding = finding.note(format!("points: {}", points.join(" ")));
            }
            let finding = place.into_iter().fold(finding, |finding, span| finding.at(span, ""));
            return Err(Box::new(Findings::new(self.sources.clone(), vec![finding])).into());
        }
        let asked = |workflow: &&Workflow| only.is_none_or(|only| workflow.point.as_deref() == Some(only));
        let (mut plans, mut findings): (Vec<Plan>, Vec<Finding>) = Default::default();
        for workflow in workflows.iter().filter(asked) {
            match workflow.plan(registry) {
                Ok(plan) => plans.push(plan),
                // What is wrong with all of them is said once.
                Err(Error::Workflow(found)) => {
                    let new: Vec<Finding> =
                        found.list.into_iter().filter(|finding| !findings.contains(finding)).collect();
                    findings.extend(new);
                }
                Err(error) => return Err(error),
            }
        }
        if findings.is_empty() {
            return Ok(plans);
        }
        Err(Box::new(Findings::new(self.sources.clone(), findings)).into())
    }
}

/// The workflow of every point; the workflow itself, without a matrix.
fn expand(workflow: &Workflow) -> Result<Vec<Workflow>, Error> {
    let refused = |findings| Err(Box::new(Findings::new(workflow.sources.clone(), findings)).into());
    let mut root = workflow.root.clone();
    let Some(matrix) = root.0.iter().position(|entry| entry.key == TABLE).map(|at| root.0.remove(at)) else {
        return Ok(vec![workflow.clone()]);
    };
    let (mut axes, mut findings) = (Vec::new(), Vec::new());
    match matrix.node.table() {
        Some(table) => self::axes(table, &[], &mut axes, &mut findings),
        None => findings.push(not_a_table(&matrix)),
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    if findings.is_empty() && count.is_none_or(|count| count > MOST) {
        let title = format!("[matrix] has more than {MOST} points");
        findings.push(Finding::error(code::OUT_OF_RANGE, title).at(matrix.span, ""));
    }
    if !findings.is_empty() {
        return refused(findings);
    }
    if axes.is_empty() {
        return Ok(vec![Workflow { root, ..workflow.clone() }]);
    }
    let names = names(&axes);
    let mut points: Vec<Workflow> = Vec::new();
    for number in 0..count.unwrap_or(0) {
        let mut point = Workflow { root: root.clone(), ..workflow.clone() };
        let (mut rest, mut words) = (number, Vec::new());
        // The last axis turns fastest.
        let mut chosen: Vec<(&Axis, &String, &Node)> = Vec::new();
        for (axis, name) in axes.iter().zip(&names).rev() {
            chosen.push((axis, name, &axis.values[rest % axis.values.len()]));
            rest /= axis.values.len();
        }
        for (axis, name, value) in chosen.into_iter().rev() {
            words.push(format!("{name}={}", word(&workflow.sources, value.span)));
            if let Err(found) = overrides::set(&mut point.root, &axis.path, value.clone()) {
                findings.extend(
                    found.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>(),
                );
            }
        }
        let name = words.join(",");
        name_it(&mut point.root, &name);
        if points.iter().any(|other| other.point.as_ref() == Some(&name)) {
            let title = format!("two points of [matrix] are called `{name}`");
            findings.push(Finding::error(code::BAD_NAME, title).at(matrix.span, ""));
            break;
        }
        point.point = Some(name);
        points.push(point);
    }
    if findings.is_empty() { Ok(points) } else { refused(findings) }
}

/// Collects the keys below `table`, which may be written dotted, quoted or as tables.
fn axes(table: &Table, path: &[Entry], axes_found: &mut Vec<Axis>, findings: &mut Vec<Finding>) {
    for entry in &table.0 {
        let keys = entry.key.split('.').map(|key| Entry { key: key.trim().to_owned(), ..entry.clone() });
        let path: Vec<Entry> = path.iter().cloned().chain(keys).collect();
        match &entry.node.value {
            Tree::Table(inner) => axes(inner, &path, axes_found, findings),
            Tree::List(values) if !values.is_empty() => {
                axes_found.push(Axis { path, values: values.clone() });
            }
            Tree::List(_) => {
                let title = format!("`{}` has no values", entry.key);
                findings.push(Finding::error(code::OUT_OF_RANGE, title).at(entry.node.span, "an empty list"));
            }
            _ => {
                let found = format!("expected a list of values, found {}", entry.node.describe());
                findings.push(
                    Finding::error(code::WRONG_TYPE, found)
                        .at(entry.node.span, "")
                        .help(Some(format!("write `\"{}\" = [ … ]`", entry.key))),
                );
            }
        }
    }
}

fn not_a_table(matrix: &Entry) -> Finding {
    let found = format!("expected a table, found {}", matrix.node.describe());
    Finding::error(code::WRONG_TYPE, found)
        .at(matrix.node.span, "")
        .help(Some("write `[matrix]` and below it `\"stages.train.optimizer.lr\" = [1e-4, 2e-4]`".into()))
}

/// For each axis the shortest end of its key that no other has.
fn names(axes: &[Axis]) -> Vec<String> {
    let end = |axis: &Axis, parts: usize| {
        let keys = &axis.path[axis.path.len().saturating_sub(parts)..];
        keys.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>().join(".")
    };
    let shortest = axes.iter().map(|axis| {
        let alone =
            |parts: &usize| axes.iter().filter(|other| end(other, *parts) == end(axis, *parts)).count() == 1;
        end(axis, (1..axis.path.len()).find(alone).unwrap_or(axis.path.len()))
    });
    shortest.collect()
}

/// A value as it is written, as part of a file's name.
fn word(sources: &Sources, span: Span) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' };
    let text: String = sources.slice(span).trim_matches(['"', '\'']).chars().map(kept).collect();
    text.trim_matches('_').chars().take(40).collect()
}

/// Puts the point's name into every text that asks for it.
fn name_it(table: &mut Table, name: &str) {
    fn walk(node: &mut Node, name: &str) {
        match &mut node.value {
            Tree::Text(text) => *text = text.replace(PLACE, name),
            Tree::List(list) => list.iter_mut().for_each(|node| walk(node, name)),
            Tree::Table(table) => name_it(table, name),
            _ => {}
        }
    }
    table.0.iter_mut().for_each(|entry| walk(&mut entry.node, name));
}
