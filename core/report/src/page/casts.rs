//! What the casts to FP8 lost in the steps that were watched: the tensors that lost most, and all together over time.

use fp8flow_flow::StageState;

use super::charts::draw;
use crate::chart::{Chart, Series, Shape};
use crate::columns::columns;
use crate::facts::{Casts, Facts, Worst};
use crate::html::Html;
use crate::words::percent;

/// Columns of a line.
const COLUMNS: usize = 400;
/// Tensors that are shown.
const SHOWN: usize = 12;
/// What is warned of, where the workflow does not say: clipped, and became zero.
const LIMITS: [f64; 2] = [0.01, 0.1];

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let watched = facts.trainings().filter(|(_, training)| !training.casts.tensors.is_empty());
    let watched: Vec<_> = watched.collect();
    for (stage, training) in &watched {
        if watched.len() > 1 {
            html.element("h3", "", &stage.seen.name);
        }
        let limit = |key: &str, default| {
            let said = stage.params.get("telemetry").and_then(|telemetry| telemetry[key].as_f64());
            said.unwrap_or(default)
        };
        let limits = [limit("warn_saturated", LIMITS[0]), limit("warn_underflowed", LIMITS[1])];
        let done = matches!(stage.seen.state, StageState::Done { .. });
        of_training(html, &training.casts, limits, done);
    }
}

fn of_training(html: &mut Html, casts: &Casts, limits: [f64; 2], done: bool) {
    let steps = casts.steps.len();
    let all = casts.steps.values().fold([0.0; 3], |sum, step| [0, 1, 2].map(|i| sum[i] + step[i]));
    let share = |i: usize| percent(all[i] / all[0].max(1.0));
    html.raw("<p>Of the elements cast in ").text(steps).raw(if steps == 1 {
        " watched step, "
    } else {
        " watched steps, "
    });
    html.element("b", "", share(1)).raw(" were clipped to the largest FP8 number and ").element(
        "b",
        "",
        share(2),
    );
    html.raw(" became zero.").raw(if done { "" } else { " More may follow." }).raw("</p>\n");
    if let (Some(first), Some(last), true) = (casts.steps.keys().next(), casts.steps.keys().last(), steps > 2)
    {
        let ends = (*first as f64, *last as f64);
        let line = |i: usize| {
            let points = casts.steps.iter();
            let points = points.map(|(step, lost)| (*step as f64, 100.0 * lost[i] / lost[0].max(1.0)));
            Shape::Line(columns(points, ends, COLUMNS))
        };
        let series = [("clipped", 4, 1), ("became zero", 0, 2)];
        let series = series.map(|(label, colour, i)| Series { label: label.into(), colour, shape: line(i) });
        let chart = Chart::new("share lost", series.into(), ends, 8, true);
        draw(html, "chart", "Share lost, in percent of all elements", &chart);
    }
    let weight = |worst: &Worst| {
        // A limit of 0 warns of everything; of two tensors the one that lost more is still worse.
        let part = |share: f64, limit: f64| share / limit.max(1e-6);
        part(worst.saturated.0, limits[0]).max(part(worst.underflowed.0, limits[1]))
    };
    let mut worst: Vec<_> = casts.tensors.iter().filter(|(_, worst)| weight(worst) > 0.0).collect();
    worst.sort_by(|(_, a), (_, b)| weight(b).total_cmp(&weight(a)));
    if worst.is_empty() {
        html.raw("<p class=\"note\">No tensor lost anything.</p>\n");
        return;
    }
    html.raw("<div class=\"scroll\"><table>\n<thead><tr><th>the worst</th><th>tensor</th>");
    html.raw("<th class=\"number\">clipped</th><th class=\"number\">became zero</th>");
    html.raw("<th class=\"number\">largest magnitude</th><th class=\"number\">oldest scale</th></tr></thead>\n<tbody>\n");
    for ((layer, tensor), worst) in worst.iter().take(SHOWN) {
        html.raw("<tr><th scope=\"row\">").element("code", "", layer).raw("</th>").element("td", "", tensor);
        for ((share, step), limit) in [(worst.saturated, limits[0]), (worst.underflowed, limits[1])] {
            html.raw(if share > limit { "<td class=\"number bad\">" } else { "<td class=\"number\">" });
            html.text(percent(share));
            if share > 0.0 {
                html.raw(" <small>step ").text(step).raw("</small>");
            }
            html.raw("</td>");
        }
        html.element("td", "number", format!("{:.3e}", worst.amax));
        let age = match worst.scale_age {
            0 => "fresh".to_owned(),
            1 => "1 micro-batch".to_owned(),
            n => format!("{n} micro-batches"),
        };
        html.element("td", "number", age).raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n");
    if worst.len() > SHOWN {
        html.raw("<p class=\"note\">")
            .text(worst.len() - SHOWN)
            .raw(" more tensors lost something: telemetry.jsonl has all.</p>\n");
    }
}
