//! What the training was planned to take of memory, part by part, beside what it took.

use serde_json::Value;

use crate::chart::short;
use crate::facts::{Facts, Training};
use crate::html::Html;
use crate::words::size;

/// The parts of a plan, with their colours.
const PARTS: [(&str, &str, &str); 6] = [
    ("states", "masters, moments and gradients", "c0"),
    ("activations", "activations", "c1"),
    ("backend", "the backend", "c2"),
    ("device", "the device's work", "c3"),
    ("examples", "examples", "c5"),
    ("program", "the program", "c6"),
];

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let planned = facts.trainings().filter(|(_, training)| training.memory["peak"].as_u64().is_some());
    let planned: Vec<_> = planned.collect();
    for (stage, training) in &planned {
        if planned.len() > 1 {
            html.element("h3", "", &stage.seen.name);
        }
        of_training(html, training);
    }
}

fn of_training(html: &mut Html, Training { memory, account, .. }: &Training) {
    // As it was known when the examples were read; before that, the most it could be.
    let exact = account["memory"].get("parts").filter(|parts| parts.is_object());
    let said = exact.unwrap_or(memory);
    let bytes = |value: &Value| value.as_u64().filter(|bytes| *bytes > 0);
    let parts = PARTS.iter().filter_map(|(key, name, colour)| Some((*name, *colour, bytes(&said[*key])?)));
    let parts: Vec<(&str, &'static str, u64)> = parts.collect();
    let sum: u64 = parts.iter().map(|part| part.2).sum();
    let planned = bytes(&account["memory"]["planned"]).or(bytes(&memory["peak"])).unwrap_or(sum);
    let peak = bytes(&account["memory"]["peak"]);
    let most = sum.max(planned).max(peak.unwrap_or(0)).max(1) as f64;
    let width = |bytes: u64| short(100.0 * bytes as f64 / most);
    html.raw("<div class=\"bars\">\n<div class=\"bar\">");
    for (_, colour, bytes) in &parts {
        html.raw("<i class=\"").raw(colour).raw("\" style=\"width:").text(width(*bytes)).raw("%\"></i>");
    }
    html.raw("</div><span>").text(size(planned)).raw(" planned</span>\n");
    if let Some(peak) = peak {
        html.raw("<div class=\"bar\"><i class=\"took\" style=\"width:")
            .text(width(peak))
            .raw("%\"></i></div><span>");
        html.text(size(peak)).raw(" at the peak</span>\n");
    }
    html.raw("</div>\n<p class=\"parts\">");
    for (name, colour, bytes) in &parts {
        html.raw("<span class=\"legend\"><i class=\"").raw(colour).raw("\"></i>").raw(name).raw(" ");
        html.text(size(*bytes)).raw("</span> ");
    }
    html.raw("</p>\n");
    let tokens =
        memory["tokens"].as_u64().map(|tokens| format!(" for micro-batches of up to {tokens} tokens"));
    if exact.is_none() && memory["exact"].as_bool() == Some(false) {
        html.raw("<p class=\"note\">Planned before the examples were read, as the most it can be");
        html.text(tokens.unwrap_or_default()).raw(".</p>\n");
    }
    if peak.is_some() {
        html.raw(
            "<p class=\"note\">The peak is that of the whole process, with all that it ran until then.</p>\n",
        );
    }
}
