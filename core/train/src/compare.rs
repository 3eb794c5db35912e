//! Two training runs held against each other: the first step and tensor whose bits differ, and how far apart the metrics are.

use std::iter::Peekable;
use std::path::Path;

use serde::Serialize;

use crate::digests::{self, StepDigest};
use crate::metrics::Line;
use crate::{METRICS, StepMetrics, TrainError, read_digests};

/// What two training folders have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Steps done in each.
    pub steps: [u64; 2],
    /// Steps that both have digests of.
    pub compared: u64,
    /// Where they part, if they do.
    pub parting: Option<Parting>,
    /// The metrics that differ anywhere.
    pub metrics: Vec<Apart>,
}

/// The first step after which two runs have other bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parting {
    /// The step; 0: they began with other weights.
    pub step: u64,
    /// Tensors that differ after it, in the model's order.
    pub tensors: Vec<String>,
    /// Tensors in all.
    pub of: usize,
    /// Metrics of the step that differ.
    pub metrics: Vec<&'static str>,
}

/// How far a metric is apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Apart {
    /// Its name.
    pub metric: &'static str,
    /// The first step at which its bits differ.
    pub first: u64,
    /// The largest difference, relative to the larger magnitude.
    pub most: f64,
    /// Where that is.
    pub at: u64,
}

type Metric = (&'static str, fn(&StepMetrics) -> f64);

const COMPARED: [Metric; 3] =
    [("loss", |line| line.loss), ("grad_norm", |line| line.grad_norm), ("lr", |line| line.lr)];

/// Compares the folders of two training stages, finished or not.
pub fn compare(folders: [&Path; 2]) -> Result<Comparison, TrainError> {
    let mut found = Comparison::default();
    let mut other = Vec::<(u64, &'static str)>::new();
    let [a, b] = folders.map(|folder| digests::lines::<StepMetrics>(&folder.join(METRICS)));
    pairs(a?, b?, |pair| match pair {
        [Some(a), Some(b)] => {
            found.steps = [a.step; 2];
            for (metric, value) in COMPARED {
                let (x, y) = (value(a), value(b));
                if x.to_bits() != y.to_bits() {
                    note(
                        &mut found.metrics,
                        metric,
                        a.step,
                        (x - y).abs() / x.abs().max(y.abs()).max(f64::MIN_POSITIVE),
                    );
                    if other.first().is_none_or(|(first, _)| *first == a.step) {
                        other.push((a.step, metric));
                    }
                }
            }
        }
        [a, b] => {
            found.steps[0] = a.map_or(found.steps[0], |line| line.step);
            found.steps[1] = b.map_or(found.steps[1], |line| line.step);
        }
    });
    let of_step = |step| other.iter().filter(move |(at, _)| *at == step).map(|(_, metric)| *metric);

    let [a, b] = folders.map(read_digests);
    let (mut names, mut parted): (Vec<String>, Option<(u64, Vec<usize>)>) = (Vec::new(), None);
    // Whether the chains were one so far: they are none where one of them began later.
    let mut one = false;
    pairs(a?, b?, |pair| {
        for line in pair.into_iter().flatten().filter(|line| !line.names.is_empty()) {
            names.clone_from(&line.names);
        }
        let [Some(a), Some(b)] = pair else { return };
        found.compared = a.step;
        if parted.is_none() {
            let tensors = a.differing(b);
            let apart = !tensors.is_empty() || one && a.chain != b.chain || of_step(a.step).next().is_some();
            one = a.chain == b.chain;
            parted = apart.then_some((a.step, tensors));
        }
    });
    // Metrics are there where digests are not.
    let parted = parted.or_else(|| other.first().map(|(step, _)| (*step, Vec::new())));
    found.parting = parted.map(|(step, tensors)| Parting {
        step,
        tensors: tensors.into_iter().filter_map(|i| names.get(i).cloned()).collect(),
        of: names.len(),
        metrics: of_step(step).collect(),
    });
    Ok(found)
}

fn note(metrics: &mut Vec<Apart>, metric: &'static str, step: u64, apart: f64) {
    match metrics.iter_mut().find(|known| known.metric == metric) {
        Some(known) if apart > known.most => (known.most, known.at) = (apart, step),
        Some(_) => {}
        None => metrics.push(Apart { metric, first: step, most: apart, at: step }),
    }
}

/// Gives `each` the lines of every step that one of the two has.
fn pairs<T: Line>(
    a: impl Iterator<Item = T>,
    b: impl Iterator<Item = T>,
    mut each: impl FnMut([Option<&T>; 2]),
) {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    while let Some(step) = next(&mut a).into_iter().chain(next(&mut b)).min() {
        let (a, b) = (a.next_if(|line| line.step() == step), b.next_if(|line| line.step() == step));
        each([a.as_ref(), b.as_ref()]);
    }
}

fn next<T: Line>(lines: &mut Peekable<impl Iterator<Item = T>>) -> Option<u64> {
    lines.peek().map(Line::step)
}

impl Parting {
    /// In words: where, and in what.
    pub fn words(&self) -> String {
        let place =
            if self.step == 0 { "before the first step".into() } else { format!("step {}", self.step) };
        let mut parts = Vec::new();
        if let [first, others @ ..] = &self.tensors[..] {
            let of = self.of;
            parts.push(match others.len() {
                0 => format!("`{first}` alone, of {of} tensors"),
                n => format!("`{first}` and {n} more of {of} tensors"),
            });
        }
        if !self.metrics.is_empty() {
            parts.push(self.metrics.join(", "));
        }
        if parts.is_empty() {
            parts.push("the chain of digests".into());
        }
        format!("{place}: {}", parts.join("; "))
    }
}

/// The digest of `step` in a training stage's folder, and the tensors' names.
pub fn digest_of(folder: &Path, step: u64) -> Result<Option<(StepDigest, Vec<String>)>, TrainError> {
    let mut names = Vec::new();
    for mut line in read_digests(folder)? {
        if !line.names.is_empty() {
            names = std::mem::take(&mut line.names);
        }
        if line.step == step {
            return Ok(Some((line, names)));
        }
    }
    Ok(None)
}
