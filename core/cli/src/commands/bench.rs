//! `fp8flow bench`: how fast GEMMs, casts, attention and training steps are here.

use fp8flow_bench::card::{self, CardBench};
use fp8flow_bench::model::Size;
use fp8flow_bench::{
    Bench, Fp8, Heads, Line, Repeats, Sizes, TrainBench, attention, cast, gemm, model, train,
};
use fp8flow_flow::Class;
use fp8flow_tensor::DType;
use serde_json::json;

use crate::args::{
    BenchAttentionArgs, BenchCommand, BenchModel, BenchPrecision, BenchRecompute, BenchSizes, BenchTrainArgs,
    Common,
};
use crate::bench_text::Table;
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::signals;

pub(super) fn bench(common: &Common, command: &BenchCommand, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_compute(common)?;
    take_device(&machine, &command.place().device)?;
    let on_a_card = machine.engine.device().card().is_some();
    // Layers of a card are measured with scales of every kind, whoever asks for them.
    let asked = command.backend().filter(|_| !on_a_card || matches!(command, BenchCommand::Train(_)));
    let fp8 = match asked {
        Some(backend) => Fp8::open(&machine.engine, &backend.backend, backend.recipe.as_deref())?,
        None => None,
    };
    let repeats = command.reps().map_or(Repeats::Enough, |reps| Repeats::Exactly(reps as usize));
    if let BenchCommand::Train(_) = command {
        signals::listen(&machine.cancel, screen, "the current step is the last")
            .map_err(|error| Failure::new(Class::Io, error))?;
    }
    let mut table = Table::new(command);
    let mut show = |line: Line| {
        if screen.json() {
            screen.print(json!(line).to_string());
        } else if let Some(rows) = table.rows(&line) {
            screen.print(rows);
        }
    };
    let sizes = match command.place().sizes {
        BenchSizes::Usual => Sizes::Usual,
        BenchSizes::Small => Sizes::Small,
    };
    if !on_a_card {
        let bench = Bench { engine: &machine.engine, repeats };
        return on_cpu(&bench, &machine, command, fp8.as_ref(), &mut show);
    }
    match CardBench::begin(&machine.engine, repeats, sizes, &mut show)? {
        Some(bench) => on_card(&bench, &machine, command, fp8.as_ref(), &mut show),
        None => Ok(()),
    }
}

fn take_device(machine: &Machine, device: &str) -> Result<(), Failure> {
    let known = machine.engine.take_device(device).map_err(|error| {
        let message = format!("the card cannot be used: {error}");
        Failure::new(Class::Missing, message).help("`fp8flow doctor` shows what was found.")
    })?;
    if known {
        return Ok(());
    }
    let help = "Use cpu, cuda or cuda:N with the number of a card.";
    Err(Failure::usage(format!("unknown device `{device}`"), help))
}

fn on_cpu(
    bench: &Bench<'_>,
    machine: &Machine,
    command: &BenchCommand,
    fp8: Option<&Fp8>,
    show: &mut dyn FnMut(Line),
) -> Result<(), Failure> {
    match command {
        BenchCommand::Gemm(args) => {
            let shape = whole([args.m, args.k, args.n]);
            gemm(bench, shape.as_ref().map_or(&gemm::SHAPES, std::slice::from_ref), fp8, show)?;
        }
        BenchCommand::Cast(args) => {
            let shape = whole([args.m, args.k]);
            cast(bench, shape.as_ref().map_or(&cast::SHAPES, std::slice::from_ref), fp8, show)?;
        }
        BenchCommand::Attention(args) => {
            let usual = attention::USUAL;
            attention(bench, heads(args, usual)?.unwrap_or(usual), show)?;
        }
        BenchCommand::Train(args) => {
            let what = TrainBench {
                steps: args.steps as usize,
                blocks: args.layers.map_or(model::BLOCKS, |layers| layers as usize),
                batch: args.batch.unwrap_or(4) as usize,
                sequence: args.sequence.unwrap_or(256) as usize,
                dtype: dtype(args),
                recompute: args.recompute == Some(BenchRecompute::Block),
                parts: args.parts,
            };
            train(bench, &what, fp8, &machine.cancel, show)?;
        }
    }
    Ok(())
}

fn on_card(
    bench: &CardBench,
    machine: &Machine,
    command: &BenchCommand,
    fp8: Option<&Fp8>,
    show: &mut dyn FnMut(Line),
) -> Result<(), Failure> {
    match command {
        BenchCommand::Gemm(args) => card::gemm(bench, whole([args.m, args.k, args.n]), show)?,
        BenchCommand::Cast(args) => card::cast(bench, whole([args.m, args.k]), show)?,
        BenchCommand::Attention(args) => {
            card::attention(bench, heads(args, card::attention::USUAL[0])?, show)?;
        }
        BenchCommand::Train(args) => {
            let models: Vec<Size> = args.model.iter().map(|&model| size(model)).collect();
            let asked = card::train::CardTraining {
                steps: args.steps as usize,
                blocks: args.layers.map(|layers| layers as usize),
                batch: args.batch.map(|batch| batch as usize),
                dtype: dtype(args),
                recompute: args.recompute.map(|recompute| recompute == BenchRecompute::Block),
            };
            let sequence = args.sequence.map(|sequence| sequence as usize);
            card::train(bench, &models, sequence, &asked, fp8, &machine.cancel, show)?;
        }
    }
    Ok(())
}

/// A shape, of which all sides are said or none.
fn whole<const N: usize>(sides: [Option<u32>; N]) -> Option<[usize; N]> {
    sides.iter().all(Option::is_some).then(|| sides.map(|side| side.unwrap_or_default() as usize))
}

/// What is said of an attention, the rest as in `usual`; none if nothing is.
fn heads(args: &BenchAttentionArgs, usual: Heads) -> Result<Option<Heads>, Failure> {
    let BenchAttentionArgs { batch, sequence, heads, kv_heads, head_dim, .. } = *args;
    if [batch, sequence, heads, kv_heads, head_dim].iter().all(Option::is_none) {
        return Ok(None);
    }
    let or = |said: Option<u32>, usual| said.map_or(usual, |said| said as usize);
    let heads = Heads {
        batch: or(batch, usual.batch),
        sequence: or(sequence, usual.sequence),
        heads: or(heads, usual.heads),
        kv_heads: or(kv_heads, usual.kv_heads),
        head_dim: or(head_dim, usual.head_dim),
    };
    if !heads.is_sound() {
        let message = format!("{} key and value heads do not divide {} heads", heads.kv_heads, heads.heads);
        return Err(Failure::usage(
            message,
            "Give --heads and --kv-heads, of which the second divides the first.",
        ));
    }
    Ok(Some(heads))
}

fn dtype(args: &BenchTrainArgs) -> DType {
    match args.precision {
        BenchPrecision::Bf16 => DType::Bf16,
        BenchPrecision::F32 => DType::F32,
    }
}

fn size(model: BenchModel) -> Size {
    match model {
        BenchModel::Small => Size::Small,
        BenchModel::Llama1B => Size::Llama1B,
        BenchModel::Llama8B => Size::Llama8B,
    }
}
