//! Measurements for people: a line on the machine, then a row a case, in 100 columns.

use std::fmt::Write as _;

use fp8flow_bench::line::{Bound, CaseLine, LeftOutLine, LimitLine, PartLine, Rate, Shape, TrainLine, Unit};
use fp8flow_bench::{Extent, Heads, Line};
use fp8flow_host::machine::Processor;

use crate::args::BenchCommand;
use crate::bench_card_text;
use crate::doctor_text::wrapped;

pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RESET: &str = "\x1b[0m";

/// Columns of the screen.
pub(crate) const WIDTH: usize = 100;
/// Columns before a row's further lines.
const INDENT: usize = 22;

/// The rows of one benchmark, which come one by one.
pub(crate) struct Table {
    /// What a share is of.
    of: &'static str,
    limits: Vec<LimitLine>,
    begun: bool,
    /// Whether a part of a step was shown.
    parts: bool,
}

impl Table {
    pub(crate) fn new(command: &BenchCommand) -> Self {
        let of = match command {
            BenchCommand::Cast(_) => "of copy",
            BenchCommand::Gemm(_) | BenchCommand::Attention(_) | BenchCommand::Train(_) => "of FMA peak",
        };
        Self { of, limits: Vec::new(), begun: false, parts: false }
    }

    /// What there is to print now that `line` is known, without a newline at its end; limits wait for the first case.
    pub(crate) fn rows(&mut self, line: &Line) -> Option<String> {
        let row = match line {
            Line::Limit(limit) => {
                self.limits.push(limit.clone());
                return None;
            }
            Line::Card(line) => return Some(bench_card_text::rows(line)),
            Line::Case(case) => self.case(case),
            Line::LeftOut(case) => left_out(case),
            Line::Train(train) => self.train(train),
            Line::Part(line) => {
                let heading = if std::mem::replace(&mut self.parts, true) { "" } else { &parts_heading() };
                return Some(heading.to_owned() + &part(line));
            }
        };
        let heading = if std::mem::replace(&mut self.begun, true) { String::new() } else { self.heading() };
        Some(heading + &row)
    }

    fn heading(&self) -> String {
        let mut parts = vec![Processor::look().name.unwrap_or_else(|| "a processor without a name".into())];
        if let Some(limit) = self.limits.first() {
            let s = if limit.threads == 1 { "" } else { "s" };
            parts.push(format!("{}, {} thread{s}", limit.isa, limit.threads));
        }
        for LimitLine { what, rate, .. } in &self.limits {
            parts.push(format!("{} {}", if *what == "copy" { "copy" } else { "FMA peak" }, figure(*rate)));
        }
        let words = wrapped(&parts.join("; "), WIDTH).join("\n");
        format!("{words}\n\n{BOLD}{:<20}{:<20}{:>16}  share{RESET}\n", "case", "shape", "figure")
    }

    fn case(&self, case: &CaseLine) -> String {
        let CaseLine { what, rate, peak_share, .. } = case;
        let share = percent(*peak_share);
        format!("{what:<20}{:<20}{:>16}  {share} {DIM}{}{RESET}", extent(case.extent), figure(*rate), self.of)
    }

    fn train(&self, train: &TrainLine) -> String {
        let shape = format!("{} × {} tokens", train.batch, train.sequence);
        let speed = format!("{:.0} tokens/s", train.tokens_per_s);
        let share = percent(train.peak_share);
        let mut out = format!("{:<20}{shape:<20}{speed:>16}  {share} {DIM}{}{RESET}", train.what, self.of);
        let fp8 = match (&train.backend, &train.recipe) {
            (Some(backend), Some(recipe)) => {
                format!("{recipe} of {backend}, {} layers in FP8", train.fp8_layers)
            }
            _ => "no FP8".to_owned(),
        };
        let s = |n: usize| if n == 1 { "" } else { "s" };
        let peak = train.peak_gb.map_or("unknown".into(), |gb| format!("{gb:.3} GB"));
        let more = format!(
            "{fp8}; {} activations, recompute {}; {} block{}, {:.1} M parameters; {:.1} ms a step (median of {}); memory \
             {peak}, planned {:.3} GB; {:.4} GFLOP a token; loss {:.4}",
            train.precision,
            train.recompute,
            train.layers,
            s(train.layers),
            train.parameters as f64 / 1e6,
            train.step_ms,
            train.steps,
            train.planned_gb,
            train.flops_per_token as f64 / 1e9,
            train.loss,
        );
        further(&mut out, &more);
        out
    }
}

fn left_out(case: &LeftOutLine) -> String {
    let mut out = format!("{:<20}{:<20}{:>16}", case.what, shape(case.shape), "left out");
    further(&mut out, &case.left_out);
    out
}

fn parts_heading() -> String {
    format!(
        "\n{BOLD}{:<20}{:>6}{:>10}{:>8}{:>10}{:>9}{:>11}  {:<8}{:>9}{RESET}\n",
        "part", "calls", "ms", "share", "GFLOP", "GB", "floor, ms", "bound", "of floor"
    )
}

/// A part of a step; what is not known of it is left empty.
fn part(line: &PartLine) -> String {
    let PartLine { part, calls, ms, share, gflop, gbytes, floor_ms, bound, of_floor, .. } = line;
    let number =
        |number: &Option<f64>, digits: usize| number.map_or(String::new(), |n| format!("{n:.digits$}"));
    let calls = calls.map_or(String::new(), |calls| calls.to_string());
    let bound = bound.map_or("", |bound| match bound {
        Bound::Compute => "compute",
        Bound::Memory => "memory",
    });
    let row = format!(
        "{part:<20}{calls:>6}{ms:>10.2}{:>8}{:>10}{:>9}{:>11}  {bound:<8}{:>9}",
        percent(*share),
        number(gflop, 3),
        number(gbytes, 4),
        number(floor_ms, 2),
        of_floor.map_or(String::new(), percent),
    );
    row.trim_end().to_owned()
}

/// Lines under a row.
pub(crate) fn further(out: &mut String, text: &str) {
    for line in wrapped(text, WIDTH - INDENT) {
        let _ = write!(out, "\n{:INDENT$}{DIM}{line}{RESET}", "");
    }
}

pub(crate) fn extent(extent: Extent) -> String {
    match extent {
        Extent::Matrix(matrix) => shape(matrix),
        Extent::Heads(Heads { batch, sequence, heads, kv_heads, head_dim }) => {
            format!("{batch}×{sequence}, {heads}/{kv_heads} × {head_dim}")
        }
    }
}

pub(crate) fn shape(Shape { m, k, n }: Shape) -> String {
    n.map_or_else(|| format!("{m} × {k}"), |n| format!("{m} × {k} × {n}"))
}

fn figure(Rate(rate, unit): Rate) -> String {
    match unit {
        Unit::Gflops => format!("{rate:.1} GFLOP/s"),
        Unit::Gbps => format!("{rate:.2} GB/s"),
    }
}

/// A share as people say it.
fn percent(share: f64) -> String {
    format!("{:>4.0} %", 100.0 * share)
}
