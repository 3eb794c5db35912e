//! The curves of the loss as a picture of their own.
//!
//! The ground is left clear, and every colour stands out from white and from black, so that it can be shown on either.

use crate::chart::{Chart, Series, Shape, outline, short};
use crate::curve::Curve;
use crate::html::escaped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
/// Room for labels: left, right, top, below.
const ROOM: [f64; 4] = [76.0, 28.0, 18.0, 58.0];
const GREY: &str = "#787e87";
/// The colours of curves, here and in the page.
pub(crate) const COLOURS: [&str; 8] =
    ["#2f7fe0", "#d96b0b", "#23954b", "#a45fe0", "#d6455d", "#148f9c", "#a37a1f", "#c24fa6"];

/// The loss of `curves`: a line each, the band around it from the smallest to the largest where a point stands for several
/// steps, evaluations on held-out examples as points.
pub fn svg(curves: &[Curve]) -> String {
    let chart = Chart::of_loss(curves);
    let [left, right, top, below] = ROOM;
    let across = |x: f64| left + x * (WIDTH - left - right);
    let up = |y: f64| HEIGHT - below - y * (HEIGHT - top - below);
    let place = |x: f64, y: f64| (across(chart.x.place(x)), up(chart.y.place(y)));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"15\" fill=\"{GREY}\">\n"
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for (value, label) in &chart.y.ticks {
        let y = short(up(chart.y.place(*value)));
        line(format!(
            "<path d=\"M{left} {y}H{}\" stroke=\"{GREY}\" stroke-opacity=\"0.28\"/>",
            WIDTH - right
        ));
        line(format!("<text x=\"{}\" y=\"{y}\" dy=\"5\" text-anchor=\"end\">{label}</text>", left - 10.0));
    }
    for (value, label) in &chart.x.ticks {
        let x = short(across(chart.x.place(*value)));
        line(format!(
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - below + 24.0
        ));
    }
    let scale = if chart.y.logarithmic { ", logarithmic" } else { "" };
    line(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>", across(0.5), HEIGHT - 10.0));
    line(format!(
        "<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">loss{scale}</text>",
        up(0.5)
    ));
    for Series { colour, shape, .. } in &chart.series {
        let colour = COLOURS[colour % COLOURS.len()];
        match shape {
            Shape::Line(columns) => {
                let (points, band) = outline(columns, place);
                if !band.is_empty() {
                    line(format!("<polygon points=\"{band}\" fill=\"{colour}\" fill-opacity=\"0.3\"/>"));
                }
                line(format!(
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>"
                ));
            }
            Shape::Dots(dots) => {
                for (x, y) in dots.iter().map(|(x, y)| place(*x, *y)) {
                    line(format!(
                        "<circle cx=\"{}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"/>",
                        short(x),
                        short(y)
                    ));
                }
            }
        }
    }
    for (row, Series { label, colour, shape }) in chart.series.iter().enumerate() {
        let (colour, y) = (COLOURS[colour % COLOURS.len()], top + 14.0 + 22.0 * row as f64);
        let x = WIDTH - right - 8.0;
        line(match shape {
            Shape::Line(_) => {
                format!("<path d=\"M{} {}h22\" stroke=\"{colour}\" stroke-width=\"2\"/>", x - 22.0, y - 5.0)
            }
            Shape::Dots(_) => {
                format!("<circle cx=\"{}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"/>", x - 11.0, y - 5.0)
            }
        });
        line(format!("<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>", x - 30.0, escaped(label)));
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::tests::curve;

    #[test]
    fn every_run_has_a_line_with_its_name_and_evaluations_are_points() {
        let svg = svg(&[curve("quiet-fox", 400, true), curve("<b>&", 5000, false)]);
        for colour in &COLOURS[..2] {
            let stroke = format!("stroke=\"{colour}\"");
            let lines = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains(&stroke));
            assert_eq!(lines.count(), 1, "{stroke}");
        }
        for words in [">quiet-fox<", ">quiet-fox, held out<", "&lt;b&gt;&amp;", ">step<", ">loss<"] {
            assert!(svg.contains(words), "{words}\n{svg}");
        }
        // Two evaluations, and their mark in the legend; only the long run has a band.
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polygon").count()), (3, 1));
        assert!(svg.len() < 60_000, "{}", svg.len());
    }

    #[test]
    fn one_step_or_none_is_a_drawing_too() {
        for steps in [0, 1] {
            let svg = svg(&[curve("a", steps, false)]);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        }
    }
}
