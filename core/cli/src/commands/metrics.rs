//! `fp8flow metrics`: what training measured, of several runs side by side.

use std::collections::BTreeSet;

use fp8flow_flow::Class;
use fp8flow_train::StepMetrics;
use serde_json::{Value, json};

use crate::args::MetricsArgs;
use crate::choose;
use crate::curves::Curve;
use crate::failure::Failure;
use crate::loss_plot;
use crate::screen::Screen;
use crate::table::{self, Cell};

/// Steps that a table shows, the first and the last among them.
const ROWS: u64 = 12;

const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[1;32m";

pub(super) fn metrics(args: &MetricsArgs, screen: &Screen) -> Result<(), Failure> {
    let mut curves = Vec::new();
    for word in &args.run {
        let run = choose::one(&args.place.runs, Some(word))?;
        curves.extend(Curve::of(&run, args.stage.as_deref())?);
    }
    if let Some(path) = &args.plot {
        let svg = loss_plot::svg(&curves).map_err(|error| Failure::new(Class::Bug, error))?;
        std::fs::write(path, svg)
            .map_err(|error| Failure::new(Class::Io, format!("{}: {error}", path.display())))?;
    }
    if screen.json() {
        screen.print(
            json!({ "plot": args.plot, "curves": curves.iter().map(object).collect::<Vec<_>>() }).to_string(),
        );
        return Ok(());
    }
    show(&curves, screen);
    if let Some(path) = &args.plot {
        screen.print(format!("\nthe curves are in {}", path.display()));
    }
    Ok(())
}

fn show(curves: &[Curve], screen: &Screen) {
    let several = curves.len() > 1;
    for (index, curve) in curves.iter().enumerate() {
        let letter = if several { format!("{}: ", letter(index)) } else { String::new() };
        screen.print(format!("{letter}{} ({}), {} steps", curve.run, curve.stage, curve.steps.len()));
    }
    let mut heads = vec![Cell::number("step").colour(DIM)];
    for index in 0..curves.len() {
        let of = if several { format!(" {}", letter(index)) } else { String::new() };
        heads.extend(
            ["loss", "lr", "grad_norm", "tokens/s"]
                .map(|head| Cell::number(format!("{head}{of}")).colour(DIM)),
        );
    }
    let mut rows = vec![heads];
    let best: Vec<Option<u64>> = curves.iter().map(|curve| curve.best().map(|line| line.step)).collect();
    for step in shown(curves) {
        let mut row = vec![Cell::number(step.to_string())];
        for (curve, best) in curves.iter().zip(&best) {
            row.extend(cells(curve.at(step), *best == Some(step)));
        }
        rows.push(row);
    }
    screen.print("");
    for line in table::lines(&rows, "  ") {
        screen.print(line);
    }
    screen.print("");
    for (index, curve) in curves.iter().enumerate() {
        let of = if several { format!("{}: ", letter(index)) } else { String::new() };
        if let Some(best) = curve.best() {
            screen.print(format!("{of}best: loss {:.4} at step {}", best.loss, best.step));
        }
        if let (Some(first), Some(last)) = (curve.held_out.first(), curve.held_out.last()) {
            let best = curve.held_out.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).unwrap_or(last);
            screen.print(format!(
                "{of}held out: loss {:.4} after step {}, {:.4} after step {}, best {:.4} after step {}",
                first.loss, first.step, last.loss, last.step, best.loss, best.step
            ));
        }
    }
}

/// The steps of a table: evenly spaced, and the best of each curve.
fn shown(curves: &[Curve]) -> BTreeSet<u64> {
    let first =
        curves.iter().filter_map(|curve| curve.steps.first()).map(|line| line.step).min().unwrap_or(1);
    let mut steps: BTreeSet<u64> =
        curves.iter().filter_map(|curve| curve.best()).map(|line| line.step).collect();
    let ends: BTreeSet<u64> =
        curves.iter().filter_map(|curve| curve.steps.last()).map(|line| line.step).collect();
    let last = ends.last().copied().unwrap_or(first);
    let gaps = ROWS - 1;
    steps.extend((0..=gaps).map(|n| first + (last - first) * n / gaps));
    steps.extend(ends);
    steps.retain(|step| curves.iter().any(|curve| curve.at(*step).is_some()));
    steps
}

fn cells(line: Option<&StepMetrics>, best: bool) -> [Cell; 4] {
    let Some(StepMetrics { loss, lr, grad_norm, tokens_per_s, .. }) = line else {
        return std::array::from_fn(|_| Cell::number("-").colour(DIM));
    };
    let texts =
        [format!("{loss:.4}"), format!("{lr:.2e}"), format!("{grad_norm:.3}"), format!("{tokens_per_s:.0}")];
    let [loss, rest @ ..] = texts.map(Cell::number);
    let [lr, norm, speed] = rest;
    [if best { loss.colour(GREEN) } else { loss }, lr, norm, speed]
}

fn letter(index: usize) -> char {
    char::from(b'A' + (index % 26) as u8)
}

fn object(curve: &Curve) -> Value {
    json!({
        "run": curve.run,
        "stage": curve.stage,
        "best": curve.best(),
        "steps": curve.steps,
        "evaluations": curve.held_out,
    })
}
