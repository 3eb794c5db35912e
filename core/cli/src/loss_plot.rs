//! The curves of the loss as an SVG: a line a run, evaluations on held-out examples as points.
//!
//! The ground is left clear, and every colour stands out from white and from black, so that it can be shown on either.

use std::error::Error;
use std::ops::Range;

use plotters::prelude::*;

use crate::curves::Curve;

const SIZE: (u32, u32) = (960, 540);
/// Points of a line; where there are more steps, a point is the mean of several.
const POINTS: usize = 1200;
const FONT: &str = "system-ui, sans-serif";
const GREY: RGBColor = RGBColor(0x78, 0x7e, 0x87);
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x7f, 0xe0),
    RGBColor(0xd9, 0x6b, 0x0b),
    RGBColor(0x23, 0x95, 0x4b),
    RGBColor(0xa4, 0x5f, 0xe0),
    RGBColor(0xd6, 0x45, 0x5d),
    RGBColor(0x14, 0x8f, 0x9c),
    RGBColor(0xa3, 0x7a, 0x1f),
    RGBColor(0xc2, 0x4f, 0xa6),
];

/// Draws `curves`.
pub(crate) fn svg(curves: &[Curve]) -> Result<String, Box<dyn Error + '_>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let (across, up) = ranges(curves);
        let mut chart = ChartBuilder::on(&root)
            .margin(18)
            .margin_right(28)
            .x_label_area_size(48)
            .y_label_area_size(62)
            .build_cartesian_2d(across, up)
            .map_err(words)?;
        let label = (FONT, 15).into_font().color(&GREY);
        chart
            .configure_mesh()
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.28))
            .light_line_style(TRANSPARENT)
            .x_labels(9)
            .y_labels(8)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss}"))
            .label_style(label.clone())
            .axis_desc_style((FONT, 16).into_font().color(&GREY))
            .x_desc("step")
            .y_desc("loss")
            .draw()
            .map_err(words)?;
        for (index, curve) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let line = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points(curve), line))
                .map_err(words)?
                .label(curve.label.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
            if curve.held_out.is_empty() {
                continue;
            }
            let dot = colour.filled();
            let dots = curve.held_out.iter().filter(|found| found.loss.is_finite());
            chart
                .draw_series(dots.map(|found| Circle::new((found.step as f64, found.loss), 5, dot)))
                .map_err(words)?
                .label(format!("{}, held out", curve.label))
                .legend(move |(x, y)| Circle::new((x + 11, y), 5, dot));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(14)
            .legend_area_size(32)
            .label_font(label)
            .border_style(TRANSPARENT)
            .draw()
            .map_err(words)?;
        root.present().map_err(words)?;
    }
    Ok(text)
}

/// An error of the drawing without what it borrows.
fn words(error: impl Error) -> Box<dyn Error> {
    error.to_string().into()
}

/// Steps and losses that the drawing covers, with a little room.
fn ranges(curves: &[Curve]) -> (Range<f64>, Range<f64>) {
    let all = || {
        let lines = curves.iter().flat_map(points);
        let dots =
            curves.iter().flat_map(|curve| &curve.held_out).map(|found| (found.step as f64, found.loss));
        lines.chain(dots).filter(|(_, loss)| loss.is_finite())
    };
    let span = |of: fn((f64, f64)) -> f64| {
        all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((left, right), (low, high)) = (span(|point| point.0), span(|point| point.1));
    if left > right {
        return (0.0..1.0, 0.0..1.0);
    }
    let room = ((high - low) * 0.04).max(high.abs() * 1e-3).max(1e-9);
    // A loss near zero is seen as near zero.
    let low = if low >= 0.0 && low < 0.3 * high { 0.0 } else { low - room };
    (left..right.max(left + 1.0), low..high + room)
}

fn points(curve: &Curve) -> Vec<(f64, f64)> {
    let block = curve.steps.len().div_ceil(POINTS).max(1);
    let mean = |sum: f64, n: usize| sum / n as f64;
    let points = curve.steps.chunks(block).map(|lines| {
        let step = mean(lines.iter().map(|line| line.step as f64).sum(), lines.len());
        (step, mean(lines.iter().map(|line| line.loss).sum(), lines.len()))
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use fp8flow_train::StepMetrics;

    use super::*;
    use crate::curves::HeldOut;

    fn curve(label: &str, steps: u64, evaluated: bool) -> Curve {
        let line = |step: u64| StepMetrics {
            step,
            loss: 5.0 / (step as f64).sqrt(),
            lr: 1e-3,
            grad_norm: 1.0,
            tokens: 64,
            tokens_per_s: 100.0,
            precision: None,
        };
        let held_out = [0, steps].map(|step| HeldOut { step, loss: 5.0 / (step as f64 + 1.0).sqrt() });
        Curve {
            label: label.into(),
            run: label.into(),
            stage: "train".into(),
            steps: (1..=steps).map(line).collect(),
            held_out: if evaluated { held_out.to_vec() } else { Vec::new() },
        }
    }

    #[test]
    fn every_run_has_a_line_with_its_name_and_evaluations_are_points() {
        let svg = svg(&[curve("quiet-fox", 400, true), curve("<b>&", 5000, false)]).expect("drawn");
        for colour in &COLOURS[..2] {
            let RGBColor(r, g, b) = colour;
            let stroke = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\"");
            // The curve, and its mark in the legend.
            let lines = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains(&stroke));
            assert_eq!(lines.count(), 2, "{stroke}");
        }
        for words in ["quiet-fox", "quiet-fox, held out", "&lt;b&gt;&amp;", "step", "loss"] {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.len() < 200_000, "{}", svg.len());
    }

    #[test]
    fn one_step_or_none_is_a_drawing_too() {
        for steps in [0, 1] {
            svg(&[curve("a", steps, false)]).expect("drawn");
        }
    }
}
