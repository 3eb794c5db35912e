//! `fp8flow bench`: how fast GEMMs, casts and training steps are here.

use fp8flow_bench::{Bench, Fp8, Line, Repeats, TrainBench, cast, gemm, train};
use fp8flow_flow::Class;
use fp8flow_tensor::DType;
use serde_json::json;

use crate::args::{BenchCommand, BenchPrecision, BenchRecompute, Common};
use crate::bench_text::Table;
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::signals;

pub(super) fn bench(common: &Common, command: &BenchCommand, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_compute(common)?;
    let backend = command.backend();
    let fp8 = Fp8::open(&machine.engine, &backend.backend, backend.recipe.as_deref())?;
    let repeats = match command {
        BenchCommand::Gemm(args) => args.reps,
        BenchCommand::Cast(args) => args.reps,
        BenchCommand::Train(_) => None,
    };
    let repeats = repeats.map_or(Repeats::Enough, |reps| Repeats::Exactly(reps as usize));
    let bench = Bench { engine: &machine.engine, repeats };
    let mut table = Table::new(command);
    let mut show = |line: Line| {
        if screen.json() {
            screen.print(json!(line).to_string());
        } else if let Some(rows) = table.rows(&line) {
            screen.print(rows);
        }
    };
    match command {
        BenchCommand::Gemm(args) => {
            let shape = args.m.zip(args.k).zip(args.n).map(|((m, k), n)| [m, k, n].map(|len| len as usize));
            gemm(
                &bench,
                shape.as_ref().map_or(&gemm::SHAPES, std::slice::from_ref),
                fp8.as_ref(),
                &mut show,
            )?;
        }
        BenchCommand::Cast(args) => {
            let shape = args.m.zip(args.k).map(|(m, k)| [m, k].map(|len| len as usize));
            cast(
                &bench,
                shape.as_ref().map_or(&cast::SHAPES, std::slice::from_ref),
                fp8.as_ref(),
                &mut show,
            )?;
        }
        BenchCommand::Train(args) => {
            signals::listen(&machine.cancel, screen, "the current step is the last")
                .map_err(|error| Failure::new(Class::Io, error))?;
            let what = TrainBench {
                steps: args.steps as usize,
                blocks: args.layers as usize,
                batch: args.batch as usize,
                sequence: args.sequence as usize,
                dtype: match args.precision {
                    BenchPrecision::Bf16 => DType::Bf16,
                    BenchPrecision::F32 => DType::F32,
                },
                recompute: args.recompute == BenchRecompute::Block,
                parts: args.parts,
            };
            train(&bench, &what, fp8.as_ref(), &machine.cancel, &mut show)?;
        }
    }
    Ok(())
}
