//! What is printed of a card, a line each.

use serde::Serialize;

use super::sheet::Sheet;
use crate::line::{Rate, Shape, maybe_number, number};

/// A line of a benchmark on a card.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum CardLine {
    /// The card, before anything was measured on it but its ceilings.
    Card(Box<Head>),
    /// A GEMM, a cast, an attention.
    Case(CardCase),
    /// One that was not measured.
    LeftOut(CardLeftOut),
    /// Training steps.
    Train(Box<CardTrain>),
}

/// The card and what drives it.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// `card`.
    pub what: &'static str,
    /// Its name.
    pub card: String,
    /// What kernels are compiled for.
    pub architecture: &'static str,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// 10⁹ bytes of its memory.
    #[serde(serialize_with = "number")]
    pub memory_gb: f64,
    /// Of these, those that were free.
    #[serde(serialize_with = "number")]
    pub free_gb: f64,
    /// The driver's version, where the system tells.
    pub driver: Option<String>,
    /// The newest CUDA that the driver knows.
    pub cuda: String,
    /// The version of NVRTC.
    pub nvrtc: String,
    /// The version of cuBLASLt.
    pub cublaslt: String,
    /// The data sheet's limits, if the card is known by its name.
    pub sheet: Option<Sheet>,
    /// 10¹² operations a second of a product of large bf16 matrices, measured; none if there was no room.
    #[serde(serialize_with = "maybe_number")]
    pub bf16_tflops: Option<f64>,
    /// 10¹² bytes a second, read and written, of a large copy, measured; none if there was no room.
    #[serde(serialize_with = "maybe_number")]
    pub copy_tbps: Option<f64>,
}

/// How large a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Extent {
    /// A GEMM or a cast.
    Matrix(Shape),
    /// An attention.
    Heads(Heads),
}

/// An attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub sequence: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// A case.
#[derive(Clone, Debug, Serialize)]
pub struct CardCase {
    /// Which.
    pub what: &'static str,
    /// What shares a scale; none for what has no scales.
    pub scales: Option<&'static str>,
    /// How large.
    #[serde(flatten)]
    pub extent: Extent,
    /// Microseconds, by the median.
    #[serde(serialize_with = "number")]
    pub us: f64,
    /// How fast.
    #[serde(flatten)]
    pub rate: Rate,
    /// The rate as a share of the data sheet's limit.
    #[serde(serialize_with = "maybe_number")]
    pub sheet_share: Option<f64>,
    /// The rate as a share of the measured product of bf16 matrices, or of the measured copy.
    #[serde(serialize_with = "maybe_number")]
    pub ceiling_share: Option<f64>,
    /// Of a GEMM by cuBLASLt: the rate over that by the fastest algorithm that it proposes.
    #[serde(serialize_with = "maybe_number")]
    pub best_algorithm: Option<f64>,
}

/// A case that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct CardLeftOut {
    /// Which.
    pub what: &'static str,
    /// What shares a scale.
    pub scales: Option<&'static str>,
    /// How large.
    #[serde(flatten)]
    pub extent: Extent,
    /// Why.
    pub left_out: String,
}

/// Training steps on a card.
#[derive(Clone, Debug, Serialize)]
pub struct CardTrain {
    /// `train`.
    pub what: &'static str,
    /// The model's shape.
    pub model: &'static str,
    /// The plugin, if layers run in FP8.
    pub backend: Option<String>,
    /// Its recipe.
    pub recipe: Option<String>,
    /// Type of the activations.
    pub precision: &'static str,
    /// What is computed again for backward.
    pub recompute: &'static str,
    /// Blocks that were trained.
    pub layers: usize,
    /// Blocks that the model has.
    pub of_layers: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Steps that counted.
    pub steps: usize,
    /// Linear layers that ran in FP8.
    pub fp8_layers: usize,
    /// Parameters that were trained.
    pub parameters: u64,
    /// Tokens a second in the median step.
    #[serde(serialize_with = "number")]
    pub tokens_per_s: f64,
    /// Milliseconds of the median step.
    #[serde(serialize_with = "number")]
    pub step_ms: f64,
    /// FLOPs of a token, forward and backward.
    pub flops_per_token: u64,
    /// 10¹² of these a second.
    #[serde(serialize_with = "number")]
    pub tflops: f64,
    /// The same as a share of the data sheet's FP8 peak.
    #[serde(serialize_with = "maybe_number")]
    pub fp8_peak_share: Option<f64>,
    /// The same as a share of the measured product of bf16 matrices.
    #[serde(serialize_with = "maybe_number")]
    pub ceiling_share: Option<f64>,
    /// 10⁹ bytes of the card that were taken by the run.
    #[serde(serialize_with = "number")]
    pub used_gb: f64,
    /// What `plan` would have said of the card's memory.
    #[serde(serialize_with = "number")]
    pub planned_gb: f64,
    /// Loss of the last step.
    pub loss: f64,
}
