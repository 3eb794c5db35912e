//! The recipes as data: names, options, and which operand of which GEMM is cast how.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::{Cast, Dgrad, Fprop, Gemms, Granularity, Role, Source, Wgrad};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{Error, OptionField, OptionKind, Options, RecipeInfo, Result};

use crate::history::{AmaxAlgorithm, ScaleUpdate};

/// Elements of a block of [`RecipeName::Blockwise`], along each side that has blocks.
pub const BLOCK: usize = 128;

/// The recipes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeName {
    /// `DelayedScaling`.
    Delayed,
    /// `Float8CurrentScaling`.
    Current,
    /// `Float8BlockScaling`.
    Blockwise,
}

/// The formats of a recipe: Transformer Engine's `Format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// e4m3 forward, e5m2 gradients.
    Hybrid,
    /// e4m3 throughout.
    E4m3,
}

impl Formats {
    /// The format of a tensor.
    pub const fn of(self, role: Role) -> Fp8 {
        match (self, role) {
            (Self::Hybrid, Role::Gradient) => Fp8::E5m2,
            _ => Fp8::E4m3,
        }
    }
}

/// The options of [`RecipeName::Delayed`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DelayedOptions {
    /// Entries of a history.
    pub amax_history_len: usize,
    /// How the maximum is taken from it.
    pub algorithm: AmaxAlgorithm,
    /// Scales are smaller by `2^margin`.
    pub margin: i32,
    /// The formats.
    pub formats: Formats,
    /// Whether maxima are taken over all ranks.
    pub reduce_amax: bool,
    /// Whether a tensor without a history is scaled by its own maximum.
    pub warm_start: bool,
}

impl DelayedOptions {
    fn read(options: &Options) -> Result<Self> {
        let whole = |name: &str| {
            let value = options.integer(name)?;
            i32::try_from(value).map_err(|_| Error::invalid(format!("option `{name}`: {value} is too large")))
        };
        Ok(Self {
            amax_history_len: whole(AMAX_HISTORY_LEN)?.max(1) as usize,
            algorithm: match options.choice(AMAX_COMPUTE_ALGO)? {
                "most_recent" => AmaxAlgorithm::MostRecent,
                _ => AmaxAlgorithm::Max,
            },
            margin: whole(MARGIN)?,
            formats: formats(options)?,
            reduce_amax: options.bool(REDUCE_AMAX)?,
            warm_start: options.bool(WARM_START)?,
        })
    }

    /// How the scales of a tensor are made.
    pub fn rule(&self, role: Role) -> ScaleUpdate {
        // Exact for every margin the option admits.
        let target = f64::from(self.formats.of(role).max()) * 2_f64.powi(-self.margin);
        ScaleUpdate { target: target as f32, algorithm: self.algorithm }
    }
}

/// A recipe with its options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// Scales from histories.
    Delayed(DelayedOptions),
    /// Scales from the tensor at hand.
    Current {
        /// The formats.
        formats: Formats,
        /// Whether scales are rounded down to powers of two.
        power_2_scale: bool,
    },
    /// Scales from the block at hand.
    Blockwise,
}

const AMAX_HISTORY_LEN: &str = "amax_history_len";
const AMAX_COMPUTE_ALGO: &str = "amax_compute_algo";
const MARGIN: &str = "margin";
const FORMAT: &str = "format";
const REDUCE_AMAX: &str = "reduce_amax";
const WARM_START: &str = "warm_start";
const POWER_2_SCALE: &str = "power_2_scale";

impl RecipeName {
    /// All of them, as they are listed to users.
    pub const ALL: [Self; 3] = [Self::Delayed, Self::Current, Self::Blockwise];

    /// The name in a workflow.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Current => "current",
            Self::Blockwise => "blockwise",
        }
    }

    /// The recipe called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.as_str() == name)
    }

    /// Name, meaning and options.
    pub fn info(self) -> RecipeInfo {
        let option = |name: &str, kind, default: Value, about: &str| OptionField {
            name: name.into(),
            kind,
            default,
            about: about.into(),
        };
        let words = |words: &[&str]| OptionKind::Choice { values: words.iter().map(|&w| w.into()).collect() };
        let format = || {
            option(
                FORMAT,
                words(&["HYBRID", "E4M3"]),
                json!("HYBRID"),
                "HYBRID: e4m3 for inputs and weights, e5m2 for gradients; E4M3: e4m3 for all. e5m2 forward has too \
                 few bits, and is not offered.",
            )
        };
        let (about, options) = match self {
            Self::Delayed => (
                "One scale a tensor, made from its maxima in the micro-batches before; e5m2 gradients.",
                vec![
                    option(
                        AMAX_HISTORY_LEN,
                        OptionKind::Integer { min: 1, max: 65536 },
                        json!(16),
                        "Micro-batches whose maxima a scale is made from.",
                    ),
                    option(
                        AMAX_COMPUTE_ALGO,
                        words(&["max", "most_recent"]),
                        json!("max"),
                        "Whether the largest or the newest of these maxima counts.",
                    ),
                    option(
                        MARGIN,
                        OptionKind::Integer { min: 0, max: 8 },
                        json!(0),
                        "Scales are made smaller by 2^margin, as room for tensors that grow.",
                    ),
                    format(),
                    option(
                        REDUCE_AMAX,
                        OptionKind::Bool,
                        json!(true),
                        "Take maxima over all ranks of a run; of no effect in one process.",
                    ),
                    option(
                        WARM_START,
                        OptionKind::Bool,
                        json!(false),
                        "Scale the first micro-batch by its own maxima instead of by 1. Not in Transformer Engine.",
                    ),
                ],
            ),
            Self::Current => (
                "One scale a tensor, made from its own maximum; e5m2 gradients.",
                vec![
                    format(),
                    option(
                        POWER_2_SCALE,
                        OptionKind::Bool,
                        json!(false),
                        "Round every scale down to a power of two.",
                    ),
                ],
            ),
            Self::Blockwise => (
                "One power-of-two scale for 1×128 elements of activations and gradients, and for 128×128 of weights; e4m3.",
                Vec::new(),
            ),
        };
        RecipeInfo { name: self.as_str().into(), about: about.into(), options }
    }

    /// The recipe as `options` want it.
    pub fn settings(self, options: &Options) -> Result<Settings> {
        Ok(match self {
            Self::Delayed => Settings::Delayed(DelayedOptions::read(options)?),
            Self::Current => {
                Settings::Current { formats: formats(options)?, power_2_scale: options.bool(POWER_2_SCALE)? }
            }
            Self::Blockwise => Settings::Blockwise,
        })
    }
}

fn formats(options: &Options) -> Result<Formats> {
    Ok(if options.choice(FORMAT)? == "E4M3" { Formats::E4m3 } else { Formats::Hybrid })
}

impl Settings {
    /// What both dimensions of a weight must be multiples of.
    pub const fn multiple(self) -> usize {
        match self {
            // Rows of 16 bytes for the tensor cores.
            Self::Delayed(_) | Self::Current { .. } => 16,
            Self::Blockwise => BLOCK,
        }
    }

    /// Which operand of which GEMM is cast how.
    pub fn gemms(self) -> Gemms {
        match self {
            Self::Delayed(options) => per_tensor(options.formats, Source::Delayed),
            Self::Current { formats, power_2_scale: false } => {
                per_tensor(formats, Source::Current(ScaleRule::FiniteLinear))
            }
            Self::Current { formats, power_2_scale: true } => {
                per_tensor(formats, Source::Current(ScaleRule::FinitePowerOfTwo))
            }
            Self::Blockwise => {
                let along_rows = block(1, BLOCK);
                let along_cols = block(BLOCK, 1);
                let square = block(BLOCK, BLOCK);
                Gemms {
                    fprop: Fprop { x: along_rows, w: square },
                    dgrad: Dgrad { dy: along_rows, w: square },
                    wgrad: Some(Wgrad { dy: along_cols, x: along_cols }),
                }
            }
        }
    }
}

const fn block(rows: usize, cols: usize) -> Cast {
    Cast {
        format: Fp8::E4m3,
        granularity: Granularity::Blocks { rows, cols },
        source: Source::Current(ScaleRule::FinitePowerOfTwo),
    }
}

/// One scale a tensor: a cast serves both GEMMs that read it.
fn per_tensor(formats: Formats, source: Source) -> Gemms {
    let cast = |role| Cast { format: formats.of(role), granularity: Granularity::Tensor, source };
    let [x, w, dy] = [Role::Input, Role::Weight, Role::Gradient].map(cast);
    Gemms { fprop: Fprop { x, w }, dgrad: Dgrad { dy, w }, wgrad: Some(Wgrad { dy, x }) }
}
