//! The curves, drawn so that they fill whatever room there is: lines stretch, their widths and all words do not.

use fp8flow_train::StepMetrics;

use crate::chart::{Chart, Series, Shape, outline, short};
use crate::facts::{Facts, Training};
use crate::html::Html;

/// The drawing's own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 400.0;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let trainings = facts.trainings().filter(|(_, training)| !training.curve.steps.is_empty());
    let trainings: Vec<_> = trainings.collect();
    for (stage, training) in &trainings {
        if trainings.len() > 1 {
            html.element("h3", "", &stage.seen.name);
        }
        of_training(html, training);
    }
}

fn of_training(html: &mut Html, training: &Training) {
    let curve = &training.curve;
    let mut loss = Chart::of_loss(std::slice::from_ref(curve));
    for series in &mut loss.series {
        match series.shape {
            Shape::Line(_) => series.label = "training".into(),
            Shape::Dots(_) => (series.label, series.colour) = ("held out".into(), 1),
        }
    }
    draw(html, "chart tall", "Loss", &loss);
    broken(html, &curve.steps);
    html.raw("<div class=\"charts\">\n");
    for (title, chart) in [
        ("Learning rate", Chart::of_value("learning rate", curve, |step| step.lr, true)),
        ("Gradient norm", Chart::of_value("gradient norm", curve, |step| step.grad_norm, false)),
        ("Tokens per second", Chart::of_value("tokens per second", curve, |step| step.tokens_per_s, true)),
    ] {
        draw(html, "chart", title, &chart);
    }
    html.raw("</div>\n");
    let most = curve.steps.len();
    if most > 800 {
        html.raw("<p class=\"note\">A point of a line is the mean of several steps; the band around it goes from the smallest to the largest of them.</p>\n");
    }
}

/// Steps whose loss is no number cannot be drawn, and must be seen.
fn broken(html: &mut Html, steps: &[StepMetrics]) {
    let broken = || steps.iter().filter(|step| !step.loss.is_finite());
    if let Some(first) = broken().next() {
        let count = broken().count();
        let of = if count == 1 { "one step is".to_owned() } else { format!("{count} steps are") };
        html.raw("<p class=\"error\">The loss of ").text(of);
        html.raw(" not a finite number; the first is step ").text(first.step).raw(".</p>\n");
    }
}

/// Draws `chart`, unless there is nothing to see.
pub(super) fn draw(html: &mut Html, class: &'static str, title: &'static str, chart: &Chart) {
    if chart.is_empty() {
        return;
    }
    html.raw("<figure class=\"").raw(class).raw("\"><figcaption>").raw(title);
    if chart.y.logarithmic {
        html.raw(" <small>logarithmic</small>");
    }
    if chart.series.len() > 1 {
        for Series { label, colour, shape } in &chart.series {
            html.raw(" <span class=\"legend\"><i class=\"").raw(class_of(*colour)).raw(match shape {
                Shape::Line(_) => " line",
                Shape::Dots(_) => " dot",
            });
            html.raw("\"></i>").text(label).raw("</span>");
        }
    }
    html.raw("</figcaption>\n<div class=\"plot\"><div class=\"y\">");
    let up = |value: f64| HEIGHT * (1.0 - chart.y.place(value));
    let across = |value: f64| WIDTH * chart.x.place(value);
    for (value, label) in &chart.y.ticks {
        html.raw("<span style=\"bottom:")
            .text(short(100.0 * chart.y.place(*value)))
            .raw("%\">")
            .text(label)
            .raw("</span>");
    }
    html.raw("</div><svg viewBox=\"0 0 1000 400\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
    html.text(&chart.what).raw(" over steps\">");
    html.raw("<path class=\"grid\" d=\"");
    for (value, _) in &chart.y.ticks {
        html.text(format!("M0 {}H1000", short(up(*value))));
    }
    html.raw("\"/>");
    for Series { colour, shape, .. } in &chart.series {
        html.raw("<g class=\"").raw(class_of(*colour)).raw("\">");
        match shape {
            Shape::Line(columns) => {
                let (line, band) = outline(columns, |x, y| (across(x), up(y)));
                if !band.is_empty() {
                    html.raw("<polygon points=\"").text(band).raw("\"/>");
                }
                html.raw("<polyline points=\"").text(line).raw("\"/>");
            }
            Shape::Dots(dots) => {
                for (x, y) in dots {
                    let place = format!("M{} {}h0", short(across(*x)), short(up(*y)));
                    html.raw("<path class=\"dot\" d=\"").text(place).raw("\"><title>after step ");
                    html.text(x).raw(": ").text(format!("{y:.4}")).raw("</title></path>");
                }
            }
        }
        html.raw("</g>");
    }
    html.raw("</svg><div class=\"x\">");
    for (value, label) in &chart.x.ticks {
        let place = chart.x.place(*value);
        html.raw(if place > 0.97 { "<span class=\"end\" style=\"left:" } else { "<span style=\"left:" });
        html.text(short(100.0 * place)).raw("%\">").text(label).raw("</span>");
    }
    html.raw("</div></div></figure>\n");
}

/// The class of a colour.
const fn class_of(colour: usize) -> &'static str {
    ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"][colour % 8]
}
