//! Where the run took place, and what gives the same bits again.

use fp8flow_host::shell::quoted;
use serde_json::Value;

use super::words::row;
use crate::facts::Facts;
use crate::html::{Html, clipped};
use crate::words::{go_on_from_anywhere, workflow_file};

/// Characters of a value.
const VALUE: usize = 1000;

/// What is known of the place, and what it is called.
const PLACE: [(&str, &str); 8] = [
    ("fp8flow", "fp8flow"),
    ("numerics", "numerics revision"),
    ("os", "system"),
    ("arch", "architecture"),
    ("cpu", "processor"),
    ("isa", "instruction set"),
    ("device", "device"),
    ("threads", "threads"),
];

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let environment = &facts.run.record.environment;
    html.raw("<div class=\"scroll\"><table class=\"pairs\"><tbody>\n");
    for (key, name) in PLACE {
        if let Some(value) = environment.get(key).filter(|value| !value.is_null()) {
            row(html, name, plain(value));
        }
    }
    if let Value::Object(backend) = facts.backend() {
        for (key, value) in backend.iter().filter(|(key, _)| *key != "fp8") {
            let name = match key.as_str() {
                "plugin" => "plugin",
                "path" => "plugin’s file",
                "digest" => "plugin’s blake3",
                "version" => "plugin’s version",
                other => other,
            };
            row(html, clipped(name, VALUE), plain(value));
        }
    }
    row(html, "run’s folder", facts.run.folder.display());
    row(html, "workflow’s file", clipped(&workflow_file(&facts.run).display().to_string(), VALUE));
    let words = environment["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).map(quoted);
    row(html, "command", clipped(&words.collect::<Vec<_>>().join(" "), VALUE));
    html.raw("</tbody></table></div>\n");
}

pub(super) fn again(html: &mut Html, facts: &Facts) {
    let folder = facts.run.folder.display().to_string();
    let command = |html: &mut Html, why: &'static str, command: String| {
        html.element("p", "", why).element("pre", "command", command).raw("\n");
    };
    if facts.run.standing.is_unfinished() {
        command(html, "Go on from where it stopped:", go_on_from_anywhere(&facts.run));
        return;
    }
    command(
        html,
        "Do it once more beside it and compare every bit:",
        format!("fp8flow verify {}", quoted(&folder)),
    );
    command(
        html,
        "The same workflow as a run of its own, every stage done:",
        format!("{} --fresh", go_on_from_anywhere(&facts.run)),
    );
    command(html, "Then see where two runs part:", format!("fp8flow diff {} OTHER", quoted(&folder)));
    html.raw("<p class=\"note\">The bits are a function of the workflow, its files, the plugin and the numerics revision; the number of threads and the instruction set change none.</p>\n");
}

/// A value without the quotes of JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => clipped(text, VALUE),
        other => clipped(&other.to_string(), VALUE),
    }
}
