//! The trainer's news as events of the run.

use std::collections::BTreeSet;
use std::path::Path;

use fp8flow_data::Tokenizer;
use fp8flow_flow::Reporter;
use fp8flow_train::telemetry::{Casts, Shares};
use fp8flow_train::{Evaluated, LayerTelemetry, Sample, StepMetrics, TELEMETRY, Watcher};
use serde_json::json;

pub(crate) struct Watch {
    reporter: Reporter,
    steps: u64,
    tokenizer: Option<Tokenizer>,
    limits: Shares,
    /// What was warned about: the kind of loss, the layer, the tensor.
    warned: BTreeSet<(&'static str, String, &'static str)>,
}

/// What a cast loses, and what can be done about it.
struct Loss {
    /// Completes "… % of the gradient of …".
    what: &'static str,
    share: fn(&Casts) -> f64,
    limit: fn(&Shares) -> f64,
    advice: &'static str,
}

const LOSSES: [Loss; 2] = [
    Loss {
        what: "was clipped to the largest FP8 number",
        share: |casts| casts.saturated,
        limit: |limits| limits.saturated,
        advice: "its scale was made from smaller values: use a recipe with current scaling, or a `margin`",
    },
    Loss {
        what: "became zero in FP8",
        share: |casts| casts.underflowed,
        limit: |limits| limits.underflowed,
        advice: "its scale spans too much, or was made from larger values: use a recipe with scales by row or block",
    },
];

impl Watch {
    pub(crate) fn new(reporter: Reporter, steps: u64, tokenizer: Option<Tokenizer>) -> Self {
        let limits = Shares { saturated: 1.0, underflowed: 1.0 };
        Self { reporter, steps, tokenizer, limits, warned: BTreeSet::new() }
    }

    /// Warns of casts that lose more.
    #[must_use]
    pub(crate) fn warning_above(self, limits: Shares) -> Self {
        Self { limits, ..self }
    }

    /// One warning for all tensors that exceed a limit for the first time: the worst is named.
    fn warn_of(&mut self, loss: &Loss, layers: &[LayerTelemetry]) {
        let limit = (loss.limit)(&self.limits);
        let casts =
            layers.iter().flat_map(|line| line.tensors().map(move |(tensor, casts)| (line, tensor, casts)));
        let above = casts.filter(|(.., casts)| (loss.share)(casts) > limit);
        let mut new: Vec<_> = above
            .filter(|(line, tensor, _)| self.warned.insert((loss.what, line.layer.clone(), *tensor)))
            .collect();
        new.sort_by(|(.., a), (.., b)| (loss.share)(b).total_cmp(&(loss.share)(a)));
        let [(line, tensor, casts), others @ ..] = &new[..] else { return };
        let others = match others.len() {
            0 => String::new(),
            1 => format!(", and of 1 other tensor more than {}", percent(limit)),
            n => format!(", and of {n} other tensors more than {}", percent(limit)),
        };
        let (share, LayerTelemetry { step, layer, .. }) = (percent((loss.share)(casts)), line);
        let (what, advice) = (loss.what, loss.advice);
        self.reporter.warn(format!(
            "step {step}: {share} of the {tensor} of `{layer}` {what}{others} ({TELEMETRY} has all); {advice}, or keep \
             the layer in high precision with `exclude` in its `layers.filter` stage"
        ));
    }

    /// A sample in words: `asked → answered (as expected)`.
    pub(crate) fn sample(&self, sample: &Sample) -> Option<String> {
        let tokenizer = self.tokenizer.as_ref()?;
        // An untrained model answers anything, control characters of terminals included.
        let text = |ids: &[u32]| {
            tokenizer.decode(ids, false).ok().map(|text| text.trim().replace(char::is_control, " "))
        };
        let expected = &sample.expected[..sample.expected.len().saturating_sub(1)];
        let (asked, wanted, answer) = (text(&sample.prompt)?, text(expected)?, text(&sample.answer)?);
        let verdict =
            if answer == wanted { "as expected".to_owned() } else { format!("expected {}", short(&wanted)) };
        Some(format!("{} → {} ({verdict})", tail(&asked), short(&answer)))
    }
}

/// A share as people say it.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".into(),
        percent if percent < 0.1 => format!("{percent:.4} %"),
        percent => format!("{percent:.1} %"),
    }
}

/// At most so many characters of a text are shown.
const SHOWN: usize = 60;

fn short(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(SHOWN).collect::<String>())
}

fn tail(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN {
        return format!("\"{text}\"");
    }
    format!("\"…{}\"", text.chars().skip(count - SHOWN).collect::<String>())
}

impl Watcher for Watch {
    fn resumed(&mut self, step: u64) {
        self.reporter.say(format!("goes on after step {step}"));
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let StepMetrics { step, loss, lr, grad_norm, tokens_per_s, .. } = metrics;
        let message = format!("loss {loss:.4}, lr {lr:.2e}, norm {grad_norm:.3}, {tokens_per_s:.0} tokens/s");
        self.reporter.metrics(json!(metrics));
        self.reporter.progress(*step, Some(self.steps), "step", message);
    }

    fn telemetry(&mut self, layers: &[LayerTelemetry]) {
        for loss in &LOSSES {
            self.warn_of(loss, layers);
        }
    }

    fn evaluated(&mut self, evaluated: &Evaluated) {
        let Evaluated { step, evaluation, samples } = evaluated;
        self.reporter.say(format!("held out, after step {step}: {}", super::report::evaluation(evaluation)));
        for line in samples.iter().filter_map(|sample| self.sample(sample)) {
            self.reporter.say(format!("  {line}"));
        }
        self.reporter.note(json!({ "evaluated": evaluated }));
    }

    fn saved(&mut self, step: u64, path: &Path) {
        self.reporter.note(json!({ "checkpoint": path, "step": step }));
    }

    fn warn(&mut self, message: &str) {
        self.reporter.warn(message);
    }
}
