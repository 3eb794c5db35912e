//! Every linear layer: whether it ran in FP8 and why, and what it counted against what it owed. Layers that differ in
//! their block only stand on one line first; the lines of all of them are folded away below.

use std::collections::BTreeSet;

use fp8flow_sdk::Precision;
use fp8flow_stages::PlannedLayer;
use serde_json::Value;

use super::summary::as_planned;
use crate::axis::grouped;
use crate::facts::{Facts, Training};
use crate::html::{Html, clipped};
use crate::words::percent;

const ROLES: [&str; 3] = ["fprop", "dgrad", "wgrad"];
/// From so many layers on, those of one precision can be chosen.
const MANY: usize = 12;

/// Layers of one precision for one reason.
struct Group<'a> {
    fp8: bool,
    reason: &'a str,
    layers: Vec<&'a PlannedLayer>,
}

/// Layers that are alike but for their block, and what they owed and counted all together.
struct Alike<'a> {
    /// The name before and after the block.
    parts: (&'a str, &'a str),
    blocks: BTreeSet<usize>,
    first: &'a PlannedLayer,
    count: usize,
    gemms: Option<Gemms>,
}

/// FP8 GEMMs that were due and that were counted: fprop, dgrad, wgrad.
type Gemms = [[u64; 3]; 2];

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let trainings = facts.trainings().filter(|(_, training)| !training.layers.layers.is_empty());
    let trainings: Vec<_> = trainings.collect();
    for (index, (stage, training)) in trainings.iter().enumerate() {
        if trainings.len() > 1 {
            html.element("h3", "", &stage.seen.name);
        }
        of_training(html, training, index);
    }
}

fn of_training(html: &mut Html, training: &Training, index: usize) {
    let (plan, fp8) = (&training.layers, training.layers.fp8().count());
    let share = percent(plan.fp8_share());
    html.raw("<p class=\"proof\"><b>").text(fp8).raw(" of ").text(plan.layers.len());
    html.raw("</b> linear layers in FP8, ").text(share).raw(" of their FLOPs");
    match as_planned(training) {
        Some(true) if fp8 > 0 => {
            html.raw(". <b class=\"good\">Every layer ran exactly the FP8 GEMMs that were planned.</b>")
        }
        Some(false) => {
            html.raw(". <b class=\"bad\">Not every layer ran the FP8 GEMMs that were planned.</b>")
        }
        _ => html.raw("."),
    };
    html.raw("</p>\n");
    evidence(html, &training.account["fp8"]);
    let groups = groups(&plan.layers);
    table(html, &groups, |html, group| {
        for Alike { parts: (front, back), blocks, first, count, gemms } in folded(group, training) {
            html.raw("<tr><th scope=\"row\"><code>").text(front);
            if !blocks.is_empty() {
                html.raw("<var>").text(ranges(&blocks)).raw("</var>").text(back);
            }
            html.raw("</code>");
            if count > 1 {
                html.raw(" <small>×\u{a0}").text(count).raw("</small>");
            }
            html.raw("</th>");
            cells(html, first, gemms);
        }
    });
    html.raw("<details><summary>All ")
        .text(plan.layers.len())
        .raw(" layers one by one</summary>\n<div class=\"filter\">");
    if fp8 > 0 && fp8 < plan.layers.len() && plan.layers.len() >= MANY {
        for (class, words) in [("all", "all"), ("only-fp8", "in FP8"), ("only-high", "in high precision")] {
            html.raw("<label><input type=\"radio\" name=\"layers-").text(index).raw("\" class=\"").raw(class);
            html.raw(if class == "all" { "\" checked>" } else { "\">" }).raw(words).raw("</label> ");
        }
    }
    table(html, &groups, |html, group| {
        for layer in &group.layers {
            html.raw("<tr><th scope=\"row\">").element("code", "", &layer.facts.name).raw("</th>");
            cells(html, layer, counted(training, layer));
        }
    });
    html.raw("</div></details>\n");
}

/// What each recipe has shown, and how much was counted.
fn evidence(html: &mut Html, fp8: &Value) {
    for shown in fp8["challenge"].as_array().into_iter().flatten() {
        html.raw("<p class=\"note\">Recipe ").element(
            "b",
            "",
            clipped(shown["recipe"].as_str().unwrap_or("?"), 200),
        );
        html.raw(" was seen to compute in FP8 before the first step: on a layer of ");
        html.text(&shown["out_features"]).raw(" × ").text(&shown["in_features"]).raw(" it was ");
        for (at, (key, name)) in [("y", "y"), ("dx", "dx"), ("dw", "dW")].into_iter().enumerate() {
            let decibels = shown["db"][key].as_array().into_iter().flatten().filter_map(Value::as_f64);
            let least = decibels.fold(f64::INFINITY, f64::min);
            html.raw(if at > 0 { ", " } else { "" }).raw(name);
            html.text(if least.is_finite() { format!(" {least:.1} dB") } else { " –".into() });
        }
        html.raw(" from exact products, as only FP8 is.</p>\n");
    }
    if let [Some(trained), Some(recomputed), Some(evaluated)] =
        ["trained", "recomputed", "evaluated"].map(|key| fp8["passes"][key].as_u64())
    {
        let passes = |n: u64| grouped(&n.to_string());
        html.raw("<p class=\"note\">Counted by the process that ended the training, over ");
        html.text(passes(trained)).raw(" micro-batches trained on");
        if recomputed > 0 {
            html.raw(", ").text(passes(recomputed)).raw(" recomputed");
        }
        html.raw(" and ").text(passes(evaluated)).raw(" evaluated.</p>\n");
    }
}

/// FP8 first, otherwise in the model's order.
fn groups(layers: &[PlannedLayer]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for layer in layers {
        let (fp8, reason) = (layer.decision.precision == Precision::Fp8, layer.decision.reason.as_str());
        match groups.iter_mut().find(|group| (group.fp8, group.reason) == (fp8, reason)) {
            Some(group) => group.layers.push(layer),
            None => groups.push(Group { fp8, reason, layers: vec![layer] }),
        }
    }
    groups.sort_by_key(|group| !group.fp8);
    groups
}

fn folded<'a>(group: &Group<'a>, training: &Training) -> Vec<Alike<'a>> {
    let mut rows: Vec<Alike<'a>> = Vec::new();
    for &layer in &group.layers {
        let facts = &layer.facts;
        let split = facts.block.and_then(|block| facts.name.split_once(&format!(".{block}.")));
        let parts = split.unwrap_or((&facts.name, ""));
        let gemms = counted(training, layer);
        let shape = (facts.out_features, facts.in_features);
        let alike = |row: &&mut Alike<'_>| {
            let first = &row.first.facts;
            split.is_some() && row.parts == parts && (first.out_features, first.in_features) == shape
        };
        if let Some(row) = rows.iter_mut().find(alike) {
            row.count += 1;
            row.blocks.extend(facts.block);
            row.gemms = row.gemms.zip(gemms).map(|(a, b)| sum(a, b));
        } else {
            let blocks = facts.block.filter(|_| split.is_some()).into_iter().collect();
            rows.push(Alike { parts, blocks, first: layer, count: 1, gemms });
        }
    }
    rows
}

fn counted(training: &Training, layer: &PlannedLayer) -> Option<Gemms> {
    let count = training.counts.get(&layer.facts.name)?;
    Some([count.planned, count.counted])
}

fn sum(a: Gemms, b: Gemms) -> Gemms {
    std::array::from_fn(|which| std::array::from_fn(|role| a[which][role] + b[which][role]))
}

/// A table of `groups`, whose rows `rows` begins with a name each.
fn table(html: &mut Html, groups: &[Group<'_>], rows: impl Fn(&mut Html, &Group<'_>)) {
    html.raw("<div class=\"scroll\"><table class=\"layers\">\n<thead><tr><th>layer</th><th class=\"number\">out × in</th>");
    for role in ROLES {
        html.raw("<th class=\"number\">").raw(role).raw("</th>");
    }
    html.raw("</tr></thead>\n");
    for group in groups {
        let count = group.layers.len();
        html.raw(if group.fp8 { "<tbody class=\"fp8\">" } else { "<tbody class=\"high\">" });
        html.raw("<tr class=\"group\"><th colspan=\"5\"><span class=\"precision\">");
        html.raw(if group.fp8 { "FP8" } else { "high precision" }).raw("</span> ").text(count);
        html.raw(if count == 1 { " layer: " } else { " layers: " }).prose(&clipped(group.reason, 1000));
        html.raw("</th></tr>\n");
        rows(html, group);
        html.raw("</tbody>\n");
    }
    html.raw("</table></div>\n");
}

/// What follows the name in a row, to its end.
fn cells(html: &mut Html, layer: &PlannedLayer, gemms: Option<Gemms>) {
    let number = |n: usize| grouped(&n.to_string());
    html.raw("<td class=\"number shape\">").text(number(layer.facts.out_features)).raw(" × ");
    html.text(number(layer.facts.in_features)).raw("</td>");
    for role in 0..ROLES.len() {
        let planned = layer.decision.fp8_gemms[role] > 0 && layer.decision.precision == Precision::Fp8;
        match gemms {
            Some([due, counted]) if due[role] != counted[role] => {
                html.raw("<td class=\"number bad\">")
                    .text(counted[role])
                    .raw(" of ")
                    .text(due[role])
                    .raw("</td>");
            }
            Some([_, counted]) if planned => {
                html.element("td", "number good", grouped(&counted[role].to_string()));
            }
            None if planned => {
                html.raw("<td class=\"number\">planned</td>");
            }
            _ => {
                html.raw("<td class=\"number none\">–</td>");
            }
        }
    }
    html.raw("</tr>\n");
}

/// `0–3, 5` of the numbers 0, 1, 2, 3 and 5.
fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut().filter(|(_, last)| last + 1 == number) {
            Some((_, last)) => *last = number,
            None => ranges.push((number, number)),
        }
    }
    let words = ranges.into_iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}–{b}") });
    format!(".{{{}}}.", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_said_as_ranges() {
        for (numbers, words) in [(&[7][..], ".{7}."), (&[0, 1, 2, 3, 5], ".{0–3, 5}.")] {
            assert_eq!(ranges(&numbers.iter().copied().collect()), words);
        }
    }
}
