//! `fp8flow plugin bench`: a plugin's recipes beside the shipped ones, on the same layers.

use fp8flow_bench::line::{CaseLine, Rate};
use fp8flow_bench::{Bench, BenchError, Extent, Fp8, Line, Repeats, linear};
use fp8flow_host::{HostError, SHIPPED};
use fp8flow_stages::Engine;
use serde_json::json;

use crate::args::{Common, PluginBenchArgs};
use crate::bench_text::{extent, shape};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn bench(common: &Common, args: &PluginBenchArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_compute(common)?;
    let contenders = contenders(&machine.engine, common, args, screen)?;
    let repeats = args.reps.map_or(Repeats::Enough, |reps| Repeats::Exactly(reps as usize));
    let bench = Bench { engine: &machine.engine, repeats };
    let shape = args.m.zip(args.k).zip(args.n).map(|((m, k), n)| [m, k, n].map(|len| len as usize));
    let shapes = shape.as_ref().map_or(&linear::SHAPES[..], std::slice::from_ref);
    let mut table = Table::default();
    linear(&bench, shapes, &contenders, &mut |line| {
        if screen.json() {
            screen.print(json!(line).to_string());
        } else if let Some(row) = table.row(&line) {
            screen.print(row);
        }
    })?;
    Ok(())
}

/// What is measured beside the plugin comes first: the first of them is what figures are held against.
fn contenders(
    engine: &Engine,
    common: &Common,
    args: &PluginBenchArgs,
    screen: &Screen,
) -> Result<Vec<Fp8>, Failure> {
    let found = super::find(common, &args.plugin)?;
    let own = match &args.recipe {
        Some(recipe) => vec![Fp8::of(engine, &found, Some(recipe))?],
        None => Fp8::all_of(engine, &found)?,
    };
    let mut all = Vec::new();
    if args.beside.is_empty() {
        for name in SHIPPED.into_iter().filter(|name| *name != found.name()) {
            match Fp8::open(engine, name, None) {
                Ok(fp8) => all.extend(fp8),
                Err(BenchError::Host(HostError::NotFound { .. })) => {
                    screen.complain(format!("note: {name} is not here to be measured beside it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    for name in &args.beside {
        all.extend(Fp8::open(engine, name, None)?);
    }
    all.extend(own);
    Ok(all)
}

/// Rows as they come.
#[derive(Default)]
struct Table {
    /// The case that rows are of, and the rate of its first.
    first: Option<(&'static str, Extent, f64)>,
    begun: bool,
}

impl Table {
    fn row(&mut self, line: &Line) -> Option<String> {
        let row = match line {
            Line::Limit(limit) => {
                let Rate(peak, _) = limit.rate;
                let s = if limit.threads == 1 { "" } else { "s" };
                return Some(format!(
                    "FMA peak {peak:.1} GFLOP/s ({}, {} thread{s}); a last column of 2.00 is twice as fast as the first row \
                     of the case\n",
                    limit.isa, limit.threads
                ));
            }
            Line::Case(case) => self.case(case),
            Line::LeftOut(case) => {
                let recipe = recipe(case.backend.as_deref(), case.recipe.as_deref());
                format!("{:<10}{:<20}{recipe:<46}left out: {}", case.what, shape(case.shape), case.left_out)
            }
            Line::Train(_) | Line::Part(_) | Line::Card(_) => return None,
        };
        let heading = if std::mem::replace(&mut self.begun, true) { String::new() } else { heading() };
        Some(heading + &row)
    }

    fn case(&mut self, case: &CaseLine) -> String {
        let Rate(rate, _) = case.rate;
        let first = match self.first {
            Some((what, extent, first)) if (what, extent) == (case.what, case.extent) => first,
            _ => {
                self.first = Some((case.what, case.extent, rate));
                rate
            }
        };
        format!(
            "{:<10}{:<20}{:<46}{rate:>9.1}{:>7.0} %{:>7.2}",
            case.what,
            extent(case.extent),
            recipe(case.backend.as_deref(), case.recipe.as_deref()),
            100.0 * case.peak_share,
            rate / first,
        )
    }
}

fn heading() -> String {
    format!(
        "\x1b[1m{:<10}{:<20}{:<46}{:>9}{:>9}{:>7}\x1b[0m\n",
        "case", "shape", "recipe", "GFLOP/s", "of peak", "ratio"
    )
}

fn recipe(backend: Option<&str>, recipe: Option<&str>) -> String {
    format!("{} of {}", recipe.unwrap_or("?"), backend.unwrap_or("?"))
}
