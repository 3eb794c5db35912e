//! The head of the page: what it was, how it ended, and the few numbers that everybody looks for.

use fp8flow_flow::Standing;
use fp8flow_train::StepMetrics;
use serde_json::Value;

use super::words::moment;
use crate::axis::grouped;
use crate::facts::{Facts, Training};
use crate::html::{Html, clipped};
use crate::words::{duration, go_on_from_anywhere, size};

/// Characters of an error.
const ERROR: usize = 4000;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let (run, record) = (&facts.run, &facts.run.record);
    html.raw("<header>\n<h1>").text(clipped(&record.workflow, 200)).raw(" <span class=\"badge ");
    html.raw(run.standing.word()).raw("\">").raw(run.standing.word()).raw("</span></h1>\n<p class=\"meta\">");
    html.element("code", "", &record.id).raw(" · begun ").text(moment(&record.started));
    html.raw(" · ").text(duration(facts.worked)).raw(" of work");
    if record.attempts > 1 {
        html.text(format!(" in {} attempts", record.attempts));
    }
    if let Some(code) = record.exit_code {
        html.text(format!(" · exit code {code}"));
    }
    html.raw("</p>\n");
    if let Some(error) = record.error.clone().or_else(|| Some(run.crash.as_ref()?.to_string())) {
        let interrupted = run.standing == Standing::Interrupted;
        html.raw(if interrupted { "<div class=\"error stop\"><p>" } else { "<div class=\"error\"><p>" })
            .prose(&clipped(&error, ERROR))
            .raw("</p>");
        html.raw("</div>\n");
    }
    if run.standing == Standing::Running {
        html.raw("<p class=\"note\">The run is at work: this is how far it had come.</p>\n");
    }
    if run.standing.is_unfinished() {
        html.raw("<p class=\"note\">It goes on with <code>")
            .text(go_on_from_anywhere(run))
            .raw("</code></p>\n");
    }
    for (stage, training) in facts.trainings() {
        if facts.trainings().count() > 1 {
            html.element("h3", "", &stage.seen.name);
        }
        tiles(html, training);
    }
    html.raw("</header>\n");
}

fn tiles(html: &mut Html, training: &Training) {
    html.raw("<dl class=\"tiles\">\n");
    let Training { curve, layers, account, memory, .. } = training;
    let mut tile = |name: &'static str, value: String, more: String| {
        html.raw("<div>").element("dt", "", name).element("dd", "", value);
        html.element("dd", "more", more).raw("</div>\n");
    };
    let fp8 = layers.fp8().count();
    if !layers.layers.is_empty() {
        let verdict = match (as_planned(training), fp8) {
            (_, 0) => "everything in high precision".to_owned(),
            (Some(true), _) => "every GEMM counted as planned".to_owned(),
            (Some(false), _) => "GEMMs counted otherwise than planned".to_owned(),
            (None, _) => "planned; counted at the end".to_owned(),
        };
        tile("linear layers in FP8", format!("{fp8} of {}", layers.layers.len()), verdict);
    }
    if let (Some(first), Some(last)) = (curve.steps.first(), curve.steps.last()) {
        let steps = grouped(&last.step.to_string());
        tile("loss", loss(last.loss), format!("after {steps} steps; {} at first", loss(first.loss)));
    }
    if let (Some(first), Some(last)) = (curve.held_out.first(), curve.held_out.last()) {
        let exact = account["evaluations"].as_array().and_then(|all| all.last());
        let exact = exact.and_then(|last| Some((last["exact"].as_u64()?, last["examples"].as_u64()?)));
        let exact = exact.map(|(exact, of)| format!("; {exact} of {of} answers exact")).unwrap_or_default();
        tile("held-out loss", loss(last.loss), format!("{} at first{exact}", loss(first.loss)));
    }
    if let Some(speed) = median(&curve.steps) {
        tile("tokens per second", grouped(&format!("{speed:.0}")), "median step".into());
    }
    let (peak, planned) = (account["memory"]["peak"].as_u64(), memory["peak"].as_u64());
    let planned = account["memory"]["planned"].as_u64().or(planned);
    match (peak, planned) {
        (Some(peak), planned) => {
            let planned = planned.map(|planned| format!("{} planned", size(planned)));
            tile("memory at the peak", size(peak), planned.unwrap_or_default());
        }
        (None, Some(planned)) => tile("memory", size(planned), "planned".into()),
        (None, None) => {}
    }
    html.raw("</dl>\n");
    if let Some(fallback) = account["fallback"].as_str() {
        html.raw("<p class=\"error\">Nothing ran in FP8: ").text(clipped(fallback, ERROR)).raw("</p>\n");
    }
}

/// Whether all layers counted what they owed; not known before the training is done.
pub(super) fn as_planned(training: &Training) -> Option<bool> {
    let fp8 = &training.account["fp8"];
    let sums = |key: &str| match &fp8[key] {
        Value::Object(sums) => Some(["fprop", "dgrad", "wgrad"].map(|role| sums.get(role).cloned())),
        _ => None,
    };
    let layers = training.counts.values().all(|count| count.planned == count.counted);
    Some(sums("planned")? == sums("gemms")? && layers)
}

/// A loss in four digits or so.
fn loss(loss: f64) -> String {
    format!("{loss:.4}")
}

fn median(steps: &[StepMetrics]) -> Option<f64> {
    let mut speeds: Vec<f64> = steps.iter().map(|step| step.tokens_per_s).collect();
    let middle = speeds.len() / 2;
    (!speeds.is_empty()).then(|| *speeds.select_nth_unstable_by(middle, f64::total_cmp).1)
}
