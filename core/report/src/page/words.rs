//! What the run said, and small things that several parts of the page write.

use std::fmt::Display;

use crate::facts::Facts;
use crate::html::{Html, clipped};

/// Characters of one line of a log.
const LINE: usize = 2000;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let notes = &facts.notes;
    if !notes.warnings.is_empty() {
        html.raw("<ul class=\"warnings\">\n");
        for (stage, message) in &notes.warnings {
            html.raw("<li>");
            if !stage.is_empty() {
                html.element("b", "", clipped(stage, LINE)).raw(" ");
            }
            html.prose(&clipped(message, LINE)).raw("</li>\n");
        }
        html.raw("</ul>\n");
        if notes.more_warnings > 0 {
            html.element(
                "p",
                "note",
                format!("And {} more warnings: see events.jsonl.", notes.more_warnings),
            );
        }
    }
    for (time, reason) in &notes.resumed {
        html.raw("<p class=\"note\">Went on at ")
            .text(moment(time))
            .raw(": ")
            .prose(&clipped(reason, LINE))
            .raw("</p>\n");
    }
    for stage in &facts.stages {
        let Some(result) = stage.result.as_ref().filter(|result| !result.report.is_empty()) else { continue };
        html.raw("<h3>").text(clipped(&stage.seen.name, LINE)).raw("</h3>\n<pre class=\"log\">");
        result.report.iter().take(200).for_each(|line| {
            html.text(clipped(line, LINE)).raw("\n");
        });
        html.raw("</pre>\n");
    }
    if !notes.said.is_empty() {
        html.raw("<details><summary>On the way</summary>\n<pre class=\"log\">");
        for (stage, line) in &notes.said {
            html.element("b", "", clipped(stage, LINE)).raw("  ").text(clipped(line, LINE)).raw("\n");
        }
        html.raw("</pre></details>\n");
    }
}

/// `2026-11-25 22:17:01 UTC` of a moment.
pub(super) fn moment(time: &str) -> String {
    match time.get(..19) {
        Some(start) => format!("{} UTC", start.replace('T', " ")),
        None => time.to_owned(),
    }
}

/// A row of a table of two columns.
pub(super) fn row(html: &mut Html, key: impl Display, value: impl Display) {
    html.raw("<tr>").element("th", "", key).element("td", "", value).raw("</tr>\n");
}

/// A digest, which is long and seldom read as a whole.
pub(super) fn digest(html: &mut Html, class: &'static str, digest: &str) {
    html.raw("<td class=\"digest ").raw(class).raw("\">").element("code", "", digest).raw("</td>");
}
