//! The arguments of `fp8flow bench`.

use clap::{Args as Group, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// GEMMs in f32, bf16 and FP8, beside the peak of the FMA units, or on a card beside that of its data sheet.
    Gemm(BenchGemmArgs),
    /// Casts from bf16 to FP8, beside a copy of memory.
    Cast(BenchCastArgs),
    /// Causal attention, forward and backward, beside the peak of the FMA units, or on a card beside that of its data sheet.
    Attention(BenchAttentionArgs),
    /// Training steps of a small Llama, or on a card of Llama-3's shapes.
    Train(BenchTrainArgs),
}

impl BenchCommand {
    pub(crate) fn backend(&self) -> Option<&BackendArgs> {
        match self {
            Self::Gemm(args) => Some(&args.backend),
            Self::Cast(args) => Some(&args.backend),
            Self::Attention(_) => None,
            Self::Train(args) => Some(&args.backend),
        }
    }

    pub(crate) fn place(&self) -> &PlaceArgs {
        match self {
            Self::Gemm(args) => &args.place,
            Self::Cast(args) => &args.place,
            Self::Attention(args) => &args.place,
            Self::Train(args) => &args.place,
        }
    }

    pub(crate) fn reps(&self) -> Option<u32> {
        match self {
            Self::Gemm(args) => args.reps,
            Self::Cast(args) => args.reps,
            Self::Attention(args) => args.reps,
            Self::Train(args) => args.reps,
        }
    }

    /// What does not go together, in words.
    pub(super) fn objection(&self) -> Option<String> {
        let recipe = |BackendArgs { backend, recipe }: &BackendArgs| {
            let recipe = recipe.as_ref().filter(|_| backend == "none")?;
            Some(format!(
                "the argument '--recipe {recipe}' cannot be used with '--backend none', which has no recipe"
            ))
        };
        let on_card = !matches!(self.place().device.as_str(), "cpu" | "auto");
        let only = |said: bool, argument: &str, where_to: &str| {
            said.then(|| format!("the argument '{argument}' is only there on {where_to}"))
        };
        let place = match self {
            Self::Train(args) if on_card => only(args.parts, "--parts", "the CPU"),
            Self::Train(args) => only(!args.model.is_empty(), "--model", "a card")
                .or_else(|| only(args.reps.is_some(), "--reps", "a card; --steps says how many count")),
            _ => None,
        };
        let small = self.place().sizes == BenchSizes::Small;
        self.backend()
            .and_then(recipe)
            .or(place)
            .or_else(|| only(small && !on_card, "--sizes small", "a card"))
    }
}

/// Where.
#[derive(Debug, Group)]
pub(crate) struct PlaceArgs {
    /// cpu, cuda or cuda:N with the number of an NVIDIA card.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: String,
    /// How large the cases and the limits are on a card.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sizes: BenchSizes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchSizes {
    /// As in training.
    #[default]
    Usual,
    /// So small that they say nothing of a card: to see that everything works.
    Small,
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
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
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
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Repeats of each case; by default as many as half a second takes, and at least 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct BenchAttentionArgs {
    /// Sequences; any of these five makes one case instead of the usual ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: Option<u32>,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", value_parser = dimension())]
    pub(crate) sequence: Option<u32>,
    /// Query heads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) heads: Option<u32>,
    /// Key and value heads, which divide the query heads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) kv_heads: Option<u32>,
    /// Elements of a head.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) head_dim: Option<u32>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Repeats of each case; by default as many as half a second takes, and at least 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct BenchTrainArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Shapes of the models, on a card: 1b and 8b by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) model: Vec<BenchModel>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Steps that count, after one that warms up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) steps: u32,
    /// Type of the activations.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: BenchPrecision,
    /// Blocks of the model: 8 by default; on a card as many as it has, or as fit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) layers: Option<u32>,
    /// Sequences of a step: 4 by default; on a card as many as make 8192 tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: Option<u32>,
    /// Tokens of a sequence: 256 by default; on a card 2048, and 8192.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=LARGEST))]
    pub(crate) sequence: Option<u32>,
    /// What is computed again for backward instead of being kept: nothing by default; on a card blocks where it must be.
    #[arg(long, value_enum)]
    pub(crate) recompute: Option<BenchRecompute>,
    /// Repeats of the limits of a card.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchModel {
    /// That of the CPU: 27.8 million parameters.
    Small,
    /// Llama-3.2-1B: 1.24 billion.
    #[value(name = "1b")]
    Llama1B,
    /// Llama-3-8B: 8.03 billion.
    #[value(name = "8b")]
    Llama8B,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchRecompute {
    /// Nothing.
    None,
    /// What a block keeps inside.
    Block,
}
