//! What a drawing shows, whatever it is painted on.

use fp8flow_train::StepMetrics;

use crate::axis::Axis;
use crate::columns::{Column, columns};
use crate::curve::Curve;

/// Columns of a line: more than a screen shows of a chart, few enough for a small file.
const COLUMNS: usize = 800;

/// Curves over steps.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What is measured.
    pub(crate) what: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// One curve.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    /// Its number among the colours.
    pub(crate) colour: usize,
    pub(crate) shape: Shape,
}

/// How it is drawn.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A line through the means, in a band from the smallest to the largest.
    Line(Vec<Column>),
    /// Points that are not connected.
    Dots(Vec<(f64, f64)>),
}

/// A measured value of every step.
pub(crate) type Value = fn(&StepMetrics) -> f64;

impl Chart {
    /// The loss of `curves`; evaluations on held-out examples as points.
    pub(crate) fn of_loss(curves: &[Curve]) -> Self {
        let (mut series, mut steps) = (Vec::new(), NOTHING);
        for (colour, curve) in curves.iter().enumerate() {
            series.push(line(curve, curve.label.clone(), colour, |step| step.loss));
            steps = both(steps, ends(curve));
            let dots = curve.held_out.iter().map(|found| (found.step as f64, found.loss));
            let dots: Vec<(f64, f64)> = dots.filter(|(_, loss)| loss.is_finite()).collect();
            if let (Some((first, _)), Some((last, _))) = (dots.first(), dots.last()) {
                steps = both(steps, (*first, *last));
                let label = format!("{}, held out", curve.label);
                series.push(Series { label, colour, shape: Shape::Dots(dots) });
            }
        }
        Self::new("loss", series, steps, 8, false)
    }

    /// One value of `curve`; `from_zero` where its size is what counts.
    pub(crate) fn of_value(what: &str, curve: &Curve, value: Value, from_zero: bool) -> Self {
        Self::new(what, vec![line(curve, what.to_owned(), 0, value)], ends(curve), 4, from_zero)
    }

    /// `series` over `steps`, with about so many `ticks` of these.
    pub(crate) fn new(what: &str, series: Vec<Series>, steps: Range, ticks: usize, from_zero: bool) -> Self {
        let values = series.iter().flat_map(Series::values).fold(NOTHING, |all, y| both(all, (y, y)));
        let (x, y) = (Axis::of_steps(steps, ticks), Axis::of_values(values, from_zero));
        Self { what: what.to_owned(), x, y, series }
    }

    /// Whether there is nothing to see.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.values().is_empty())
    }
}

fn line(curve: &Curve, label: String, colour: usize, value: Value) -> Series {
    let points = curve.steps.iter().map(|step| (step.step as f64, value(step)));
    Series { label, colour, shape: Shape::Line(columns(points, ends(curve), COLUMNS)) }
}

/// The smallest and the largest.
pub(crate) type Range = (f64, f64);

const NOTHING: Range = (f64::INFINITY, f64::NEG_INFINITY);

/// The first and the last step.
fn ends(curve: &Curve) -> Range {
    match (curve.steps.first(), curve.steps.last()) {
        (Some(first), Some(last)) => (first.step as f64, last.step as f64),
        _ => NOTHING,
    }
}

fn both(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

impl Series {
    /// Every value that must be seen.
    fn values(&self) -> Vec<f64> {
        match &self.shape {
            Shape::Line(columns) => columns.iter().flat_map(|column| [column.low, column.high]).collect(),
            Shape::Dots(dots) => dots.iter().map(|(_, y)| *y).collect(),
        }
    }
}

/// The line of `columns` as the points of a polyline, and its band as those of a polygon, empty where it has no width.
/// `place` tells where a value lies.
pub(crate) fn outline(columns: &[Column], place: impl Fn(f64, f64) -> (f64, f64)) -> (String, String) {
    let text = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let points = points.map(|(x, y)| place(x, y)).map(|(x, y)| format!("{},{}", short(x), short(y)));
        points.collect::<Vec<_>>().join(" ")
    };
    let line = text(&mut columns.iter().map(|c| (c.x, c.mean)));
    let over = columns.iter().map(|c| (c.x, c.high));
    let back = columns.iter().rev().map(|c| (c.x, c.low));
    let wide = columns.iter().any(|c| c.low < c.high);
    (line, if wide { text(&mut over.chain(back)) } else { String::new() })
}

/// A coordinate, to a tenth.
pub(crate) fn short(x: f64) -> String {
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
