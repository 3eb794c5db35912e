//! The trainer's news as events of the run.

use std::path::Path;

use fp8flow_data::Tokenizer;
use fp8flow_flow::Reporter;
use fp8flow_train::{Evaluated, Sample, StepMetrics, Watcher};
use serde_json::json;

pub(crate) struct Watch {
    reporter: Reporter,
    steps: u64,
    tokenizer: Option<Tokenizer>,
}

impl Watch {
    pub(crate) fn new(reporter: Reporter, steps: u64, tokenizer: Option<Tokenizer>) -> Self {
        Self { reporter, steps, tokenizer }
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
