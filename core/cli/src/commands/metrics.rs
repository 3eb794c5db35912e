//! `fp8flow metrics`: what training measured, of several runs side by side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fp8flow_flow::{Class, Seen};
use fp8flow_report::Curve;
use fp8flow_train::StepMetrics;
use serde_json::{Value, json};

use crate::args::{ExportKind, MetricsArgs};
use crate::choose;
use crate::failure::Failure;
use crate::run_text::near;
use crate::screen::Screen;
use crate::signals;
use crate::table::{self, Cell};

/// Steps that a table shows, the first and the last among them.
const ROWS: u64 = 12;

/// Between two looks at a run at work.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[1;32m";

pub(super) fn metrics(args: &MetricsArgs, screen: &Screen) -> Result<(), Failure> {
    let runs = args.run.iter().map(|word| choose::one(&args.place.runs, Some(word)));
    let runs = runs.collect::<Result<Vec<Seen>, Failure>>()?;
    if !args.export.is_empty() {
        return export(args, &runs, screen);
    }
    let mut curves = Vec::new();
    for run in &runs {
        curves.extend(of(run, args.stage.as_deref())?);
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, fp8flow_report::svg(&curves))
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

/// What the training stages of `run` measured, or the stage `only`.
fn of(run: &Seen, only: Option<&str>) -> Result<Vec<Curve>, Failure> {
    let curves = Curve::of(run, only)?;
    if curves.is_empty() {
        let id = &run.record.id;
        let what = only.map_or("no training stage".into(), |name| format!("no training stage `{name}`"));
        let help = format!("`fp8flow status {id}` shows how far it has come.");
        return Err(Failure::usage(format!("{what} of run {id} has measured anything"), help));
    }
    Ok(curves)
}

/// Writes the files of other programs, with `--follow` as long as the runs are at work.
fn export(args: &MetricsArgs, runs: &[Seen], screen: &Screen) -> Result<(), Failure> {
    if args.follow && runs.len() > 1 {
        return Err(Failure::usage("one run is followed at a time", "Start the command once for each."));
    }
    let (kinds, only) = (ExportKind::all(&args.export), args.stage.as_deref());
    let stop = Arc::new(AtomicBool::new(false));
    if args.follow {
        signals::end_quietly(&stop).map_err(|error| Failure::new(Class::Io, error))?;
    }
    let mut files = Vec::new();
    for run in runs {
        let several = (runs.len() > 1).then(|| args.out.as_ref().map(|out| out.join(&run.record.id)));
        let out = several.flatten().or_else(|| args.out.clone());
        let out = out.as_deref();
        files.extend(if args.follow {
            let running = || Seen::look(&run.folder).is_ok_and(|run| run.is_running());
            let wait = || running() && screen.wait(BETWEEN_LOOKS) && !stop.load(Ordering::Relaxed);
            fp8flow_report::follow(run, &kinds, only, out, wait)?
        } else {
            of(run, only)?;
            fp8flow_report::export(run, &kinds, only, out)?
        });
    }
    if screen.json() {
        screen.print(json!({ "files": files }).to_string());
        return Ok(());
    }
    for file in &files {
        screen.print(near(&std::path::absolute(file).unwrap_or_else(|_| file.clone())));
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
