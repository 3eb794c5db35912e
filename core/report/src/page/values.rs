//! Every value of the workflow, defaults written out, and its text.

use serde_json::{Map, Value};

use super::environment::plain;
use super::words::row;
use crate::facts::Facts;
use crate::html::{Html, clipped};

/// Characters of a workflow's text.
const TEXT: usize = 100_000;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    html.raw("<div class=\"values\">\n");
    for (name, section) in &facts.sections {
        if let Some(Value::Object(params)) = section.get("params") {
            table(html, &format!("[{name}]"), "", params);
        }
    }
    for stage in &facts.stages {
        table(html, &format!("[stages.{}]", stage.seen.name), &stage.seen.uses, &stage.params);
    }
    html.raw("</div>\n");
    if !facts.run.record.sets.is_empty() {
        html.raw("<h3>Laid over it</h3>\n<pre class=\"command\">");
        for set in &facts.run.record.sets {
            html.raw("--set ").text(clipped(set, 1000)).raw("\n");
        }
        html.raw("</pre>\n");
    }
    if let Some(text) = &facts.workflow {
        html.raw("<details><summary>The workflow as it was written</summary>\n<pre class=\"log\">");
        html.text(clipped(text, TEXT)).raw("</pre></details>\n");
    }
}

fn table(html: &mut Html, name: &str, kind: &str, values: &Map<String, Value>) {
    html.raw("<table class=\"pairs\"><caption>").element("code", "", clipped(name, 200));
    if !kind.is_empty() {
        html.raw(" ").element("small", "", clipped(kind, 200));
    }
    html.raw("</caption><tbody>\n");
    rows(html, "", values);
    html.raw("</tbody></table>\n");
}

fn rows(html: &mut Html, prefix: &str, values: &Map<String, Value>) {
    for (key, value) in values {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) if !inner.is_empty() => rows(html, &format!("{key}."), inner),
            Value::Null => row(html, clipped(&key, 200), "–"),
            value => row(html, clipped(&key, 200), plain(value)),
        }
    }
}
