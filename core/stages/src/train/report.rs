//! What a training run came to, in a few lines: the proof of FP8, speed, memory, loss.

use fp8flow_host::machine::Memory;
use fp8flow_sdk::{Decision, Precision};
use fp8flow_train::proof::{self, Fp8Gemms, LayerCount, Passes};
use fp8flow_train::telemetry::{Shares, Worst};
use fp8flow_train::{Evaluated, Evaluation, StepMetrics, Trained};
use serde_json::{Value, json};

use super::evidence::Challenged;
use super::watch::{Watch, percent};
use crate::TrainingMemory;
use crate::model::gb;

pub(super) struct Report<'a> {
    gemms: Fp8Gemms,
    /// FP8 GEMMs that were due, by role.
    due: [u64; 3],
    passes: Passes,
    by_layer: Vec<LayerCount>,
    layers: usize,
    planned: usize,
    challenged: &'a [Challenged],
    /// The casts that lost most.
    worst: Vec<(&'a str, &'static str, Shares)>,
    fallback: Option<&'a str>,
    precision: Option<&'a str>,
    metrics: &'a [StepMetrics],
    evaluations: &'a [Evaluated],
    tokens_per_s: f64,
    /// What was planned to be held at once.
    memory: Option<TrainingMemory>,
    /// The peak so far, where the system tells.
    peak: Option<u64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        trained: &'a Trained,
        decisions: &[(String, Decision)],
        challenged: &'a [Challenged],
        limits: Shares,
        fallback: Option<&'a str>,
        memory: Option<TrainingMemory>,
    ) -> Self {
        let here = &trained.metrics[trained.metrics.len() - trained.steps_here as usize..];
        let mut speeds: Vec<f64> = here.iter().map(|line| line.tokens_per_s).collect();
        speeds.sort_by(f64::total_cmp);
        Self {
            gemms: Fp8Gemms::sum(&trained.counters),
            due: proof::due(decisions, trained.passes),
            passes: trained.passes,
            by_layer: proof::by_layer(decisions, &trained.counters, trained.passes),
            challenged,
            worst: worst(&trained.worst, limits),
            fallback,
            precision: trained.metrics.last().and_then(|line| line.precision.as_deref()),
            layers: decisions.len(),
            planned: decisions.iter().filter(|(_, d)| d.precision == Precision::Fp8).count(),
            metrics: &trained.metrics,
            evaluations: &trained.evaluations,
            memory,
            peak: Memory::peak(),
            tokens_per_s: speeds.get(speeds.len() / 2).copied().unwrap_or(0.0),
        }
    }

    fn losses(&self) -> (f64, f64) {
        let loss = |line: Option<&StepMetrics>| line.map_or(f64::NAN, |line| line.loss);
        (loss(self.metrics.first()), loss(self.metrics.last()))
    }

    pub(super) fn summary(&self) -> String {
        let (first, last) = self.losses();
        let precision = self.precision.map(|precision| format!(", {precision}")).unwrap_or_default();
        format!(
            "{} steps, loss {first:.4} → {last:.4}, {:.0} tokens/s{precision}",
            self.metrics.len(),
            self.tokens_per_s
        )
    }

    pub(super) fn json(&self) -> Value {
        let (first, last) = self.losses();
        let Fp8Gemms { layers, fprop, dgrad, wgrad, non_finite, cast, saturated, underflowed } = self.gemms;
        let Passes { trained, recomputed, evaluated } = self.passes;
        json!({
            "loss": { "first": first, "last": last },
            "fp8": {
                "layers": layers,
                "of": self.layers,
                "planned": { "fprop": self.due[0], "dgrad": self.due[1], "wgrad": self.due[2] },
                "gemms": { "fprop": fprop, "dgrad": dgrad, "wgrad": wgrad },
                "passes": { "trained": trained, "recomputed": recomputed, "evaluated": evaluated },
                "by_layer": self.by_layer,
                "challenge": self.challenged.iter().map(Challenged::json).collect::<Vec<_>>(),
                "non_finite_scales": non_finite,
                "watched": { "elements": cast, "saturated": saturated, "underflowed": underflowed },
                "worst": self.worst.iter().map(|(layer, tensor, shares)| json!({
                    "layer": layer, "tensor": tensor, "saturated": shares.saturated, "underflowed": shares.underflowed,
                })).collect::<Vec<_>>(),
            },
            "fallback": self.fallback,
            "evaluations": self.evaluations,
            "tokens_per_s": self.tokens_per_s,
            "memory": {
                "planned": self.memory.map(|memory| memory.peak()),
                "parts": self.memory,
                "peak": self.peak,
            },
        })
    }

    pub(super) fn lines(&self, watch: &Watch) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(precision) = self.precision {
            lines.push(format!("precision: {precision}: NOTHING ran in FP8, there was no backend for it"));
        }
        let Fp8Gemms { fprop, dgrad, wgrad, non_finite, cast, saturated, underflowed, .. } = self.gemms;
        if self.planned == 0 {
            lines.push("fp8: no layer; everything ran in high precision".into());
        } else {
            lines.push(format!(
                "fp8: {} of {} linear layers, every one as planned; GEMMs counted: {fprop} fprop, {dgrad} dgrad, {wgrad} wgrad",
                self.planned, self.layers
            ));
        }
        lines.extend(self.challenged.iter().map(Challenged::line));
        if cast > 0 {
            let share = |n: u64| percent(n as f64 / cast as f64);
            lines.push(format!(
                "fp8: of the elements cast in the watched steps {} were clipped, {} became zero",
                share(saturated),
                share(underflowed)
            ));
        }
        lines.extend(self.worst.iter().map(|(layer, tensor, Shares { saturated, underflowed })| {
            let (clipped, zero) = (percent(*saturated), percent(*underflowed));
            format!("  worst: {tensor} of {layer}: {clipped} clipped, {zero} became zero")
        }));
        if non_finite > 0 {
            lines.push(format!("fp8: {non_finite} casts had an infinite or NaN maximum"));
        }
        let (first, last) = self.losses();
        lines.push(format!("loss: {first:.4} at the first step, {last:.4} at the last"));
        lines.push(format!("speed: {:.0} tokens/s (median step)", self.tokens_per_s));
        if let Some(peak) = self.peak {
            let planned = self.memory.map(|planned| format!(", {} planned", gb(planned.resident())));
            lines.push(format!("memory: {} at the peak{}", gb(peak), planned.unwrap_or_default()));
        }
        let edges =
            [self.evaluations.first(), self.evaluations.last().filter(|_| self.evaluations.len() > 1)];
        for evaluated in edges.into_iter().flatten() {
            lines.push(format!(
                "held out, after step {}: {}",
                evaluated.step,
                evaluation(&evaluated.evaluation)
            ));
            lines.extend(
                evaluated.samples.iter().filter_map(|s| watch.sample(s)).map(|line| format!("  {line}")),
            );
        }
        lines
    }
}

/// The five casts that lost most, measured by the shares that are warned of, the worst first.
fn worst(casts: &Worst, limits: Shares) -> Vec<(&str, &'static str, Shares)> {
    const SHOWN: usize = 5;
    // A limit of 0 warns of everything; of two tensors the one that lost more is still worse.
    let part = |share: f64, limit: f64| share / limit.max(1e-6);
    let weight = |shares: &Shares| {
        part(shares.saturated, limits.saturated).max(part(shares.underflowed, limits.underflowed))
    };
    let mut worst: Vec<_> = casts.tensors().filter(|(.., shares)| weight(shares) > 0.0).collect();
    worst.sort_by(|(.., a), (.., b)| weight(b).total_cmp(&weight(a)));
    worst.truncate(SHOWN);
    worst
}

/// An evaluation in one line.
pub(crate) fn evaluation(found: &Evaluation) -> String {
    format!(
        "loss {:.4}, perplexity {:.3}, exact match {:.1} % ({} of {})",
        found.loss,
        found.perplexity,
        100.0 * found.exact_match,
        found.exact,
        found.examples
    )
}
