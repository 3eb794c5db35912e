//! The arguments of `fp8flow bench`.

use clap::{Args as Group, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// GEMMs in f32, bf16 and FP8, beside the peak of the FMA units.
    Gemm(BenchGemmArgs),
    /// Casts from bf16 to FP8, beside a copy of memory.
    Cast(BenchCastArgs),
    /// Training steps of a small Llama, beside the peak of the FMA units.
    Train(BenchTrainArgs),
}

impl BenchCommand {
    pub(crate) fn backend(&self) -> &BackendArgs {
        match self {
            Self::Gemm(args) => &args.backend,
            Self::Cast(args) => &args.backend,
            Self::Train(args) => &args.backend,
        }
    }
}

/// Whose FP8.
#[derive(Debug, Group)]
pub(crate) struct BackendArgs {
    /// A plugin's name, the path of its library, or none: no FP8.
    #[arg(long, value_name = "NAME", default_value = "torchao-rowwise")]
    pub(crate) backend: String,
    /// One of its recipes, with its own options; its first by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
}

/// The largest dimension of a matrix.
const LARGEST: i64 = 1 << 16;

pub(super) fn dimension() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=LARGEST)
}

#[derive(Debug, Group)]
pub(crate) struct BenchGemmArgs {
    /// Rows of the result; with --k and --n one shape instead of the usual ones.
    #[arg(long, requires_all = ["k", "n"], value_parser = dimension())]
    pub(crate) m: Option<u32>,
    /// Length of the contraction.
    #[arg(long, requires_all = ["m", "n"], value_parser = dimension())]
    pub(crate) k: Option<u32>,
    /// Columns of the result.
    #[arg(long, requires_all = ["m", "k"], value_parser = dimension())]
    pub(crate) n: Option<u32>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Repeats of each case; by default as many as half a second takes, and at least 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct BenchCastArgs {
    /// Rows; with --k one shape instead of the usual ones.
    #[arg(long, requires = "k", value_parser = dimension())]
    pub(crate) m: Option<u32>,
    /// Columns.
    #[arg(long, requires = "m", value_parser = dimension())]
    pub(crate) k: Option<u32>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Repeats of each case; by default as many as half a second takes, and at least 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct BenchTrainArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Steps that count, after one that warms up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) steps: u32,
    /// Type of the activations.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: BenchPrecision,
    /// Blocks of the model.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) layers: u32,
    /// Sequences of a step.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=LARGEST))]
    pub(crate) sequence: u32,
    /// What is computed again for backward instead of being kept.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) recompute: BenchRecompute,
    /// What the parts of a step take, each beside the least that it could take here.
    #[arg(long)]
    pub(crate) parts: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPrecision {
    #[default]
    Bf16,
    F32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchRecompute {
    /// Nothing.
    #[default]
    None,
    /// What a block keeps inside.
    Block,
}
