//! The stages in their order: what became of each, and where its result is from.

use fp8flow_flow::StageState;

use crate::facts::{Facts, Stage};
use crate::html::{Html, clipped};
use crate::words::duration;

/// Characters of a reason or a summary.
const WORDS: usize = 1000;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    if facts.stages.is_empty() {
        return;
    }
    html.raw("<div class=\"scroll\"><table class=\"stages\">\n<thead><tr><th>stage</th><th>kind</th><th>state</th>");
    html.raw("<th class=\"number\">time</th><th>result</th></tr></thead>\n<tbody>\n");
    // One reason for all of them, as on a first run, says nothing of any.
    let mut reasons = facts.stages.iter().map(|stage| facts.notes.reasons.get(&stage.seen.name));
    let first = reasons.next().flatten();
    let alike = facts.stages.len() > 1 && reasons.all(|reason| reason == first);
    for stage in &facts.stages {
        let reason = facts.notes.reasons.get(&stage.seen.name).filter(|reason| !alike && !reason.is_empty());
        row(html, facts, stage, reason);
    }
    html.raw("</tbody></table></div>\n");
}

fn row(html: &mut Html, facts: &Facts, stage: &Stage, reason: Option<&String>) {
    let seen = &stage.seen;
    let other = stage.result.as_ref().filter(|result| result.run != facts.run.record.id);
    let (state, class) = match &seen.state {
        StageState::Done { .. } if other.is_some() => ("taken", "taken"),
        StageState::Done { .. } => ("done", "done"),
        StageState::Running => ("running", "running"),
        StageState::Stopped => ("stopped", "interrupted"),
        StageState::Failed { .. } => ("failed", "failed"),
        StageState::Waiting => ("not begun", "waiting"),
    };
    html.raw("<tr><th scope=\"row\">").text(clipped(&seen.name, WORDS)).raw("</th>");
    html.raw("<td>").element("code", "", clipped(&seen.uses, WORDS)).raw("</td>");
    html.raw("<td class=\"state ").raw(class).raw("\">").raw(state).raw("</td><td class=\"number\">");
    if let StageState::Done { seconds, .. } = &seen.state {
        html.text(duration(*seconds));
    }
    html.raw("</td><td>");
    match &seen.state {
        StageState::Done { summary, .. } => {
            html.prose(&clipped(summary, WORDS));
        }
        StageState::Failed { message, .. } => {
            html.prose(&clipped(message, WORDS));
        }
        _ => {
            if let Some(progress) = &seen.progress {
                let total = progress.total.map_or(String::new(), |total| format!(" of {total}"));
                html.text(clipped(&progress.unit, WORDS)).text(format!(" {}{total}, ", progress.done));
                html.text(clipped(&progress.message, WORDS));
            }
        }
    }
    match (other, reason) {
        (Some(other), _) => {
            html.raw("<div class=\"note\">made by run ").element("code", "", clipped(&other.run, WORDS));
            html.raw(" at ").text(super::words::moment(&other.finished)).raw("</div>");
        }
        (None, Some(reason)) => {
            html.raw("<div class=\"note\">").prose(&clipped(reason, WORDS)).raw("</div>");
        }
        (None, None) => {}
    }
    html.raw("</td></tr>\n");
}
