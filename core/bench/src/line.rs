//! What is measured, a line each: for programs as one JSON object, for people as a row of a table.

use serde::Serialize;

use crate::card::line::{CardLine, Extent};

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10⁹ floating-point operations a second.
    Gflops,
    /// 10⁹ bytes a second.
    Gbps,
}

/// So much of a [`Unit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub f64, pub Unit);

/// Serialized as the key `gflops` or `gbps`.
impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let key = match self.1 {
            Unit::Gflops => "gflops",
            Unit::Gbps => "gbps",
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(key, &digits(self.0))?;
        map.end()
    }
}

/// A line.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// What the machine can do.
    Limit(LimitLine),
    /// A GEMM, a cast or an attention.
    Case(CaseLine),
    /// A GEMM or a cast that was not measured.
    LeftOut(LeftOutLine),
    /// A training step.
    Train(Box<TrainLine>),
    /// A part of a training step.
    Part(PartLine),
    /// Anything on a card.
    Card(CardLine),
}

/// What the machine can do at most, before anything was measured.
#[derive(Clone, Debug, Serialize)]
pub struct LimitLine {
    /// `fma_peak` or `copy`.
    pub what: &'static str,
    /// Threads that did it at once.
    pub threads: usize,
    /// The instruction set.
    pub isa: &'static str,
    /// How much.
    #[serde(flatten)]
    pub rate: Rate,
}

/// A GEMM, a cast or an attention.
#[derive(Clone, Debug, Serialize)]
pub struct CaseLine {
    /// Which.
    pub what: &'static str,
    /// How large it is.
    #[serde(flatten)]
    pub extent: Extent,
    /// Threads it may use.
    pub threads: usize,
    /// The instruction set.
    pub isa: &'static str,
    /// How fast, by the median of its repeats.
    #[serde(flatten)]
    pub rate: Rate,
    /// The plugin; none for the engine's own kernels.
    pub backend: Option<String>,
    /// Its recipe.
    pub recipe: Option<String>,
    /// The rate as a share of the limit in the meantime.
    #[serde(serialize_with = "number")]
    pub peak_share: f64,
}

/// A case that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOutLine {
    /// Which.
    pub what: &'static str,
    /// Its shape.
    #[serde(flatten)]
    pub shape: Shape,
    /// The plugin.
    pub backend: Option<String>,
    /// Its recipe.
    pub recipe: Option<String>,
    /// Why.
    pub left_out: String,
}

/// `m × k` of a cast, `m × k × n` of a GEMM: `[m, k]` by `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Rows.
    pub m: usize,
    /// Columns of a cast, the length of a GEMM's contraction.
    pub k: usize,
    /// Columns of a GEMM's result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
}

/// A training step.
#[derive(Clone, Debug, Serialize)]
pub struct TrainLine {
    /// `train`.
    pub what: &'static str,
    /// The plugin, if layers run in FP8.
    pub backend: Option<String>,
    /// Its recipe.
    pub recipe: Option<String>,
    /// Type of the activations.
    pub precision: &'static str,
    /// What is computed again for backward.
    pub recompute: &'static str,
    /// Blocks of the model.
    pub layers: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Threads.
    pub threads: usize,
    /// The instruction set.
    pub isa: &'static str,
    /// Steps that counted.
    pub steps: usize,
    /// Linear layers that ran in FP8.
    pub fp8_layers: usize,
    /// Parameters of the model.
    pub parameters: u64,
    /// Tokens a second in the median step.
    #[serde(serialize_with = "number")]
    pub tokens_per_s: f64,
    /// Milliseconds of the median step.
    #[serde(serialize_with = "number")]
    pub step_ms: f64,
    /// The most memory that the process has held, in 10⁹ bytes; none where the system does not tell.
    #[serde(serialize_with = "maybe_number")]
    pub peak_gb: Option<f64>,
    /// What `plan` would have said: masters, moments, gradients, activations, the backend's own.
    #[serde(serialize_with = "number")]
    pub planned_gb: f64,
    /// FLOPs of a token, forward and backward.
    pub flops_per_token: u64,
    /// `tokens_per_s · flops_per_token` as a share of the FMA peak between the steps.
    #[serde(serialize_with = "number")]
    pub peak_share: f64,
    /// Loss of the last step.
    pub loss: f64,
}

/// A part of a training step; what is not known of it is none.
#[derive(Clone, Debug, Serialize)]
pub struct PartLine {
    /// `part`.
    pub what: &'static str,
    /// Which; `other` for what no part accounts for, `step` for the sum of all.
    pub part: &'static str,
    /// Calls a step.
    pub calls: Option<u64>,
    /// Milliseconds of a step, by the median over the steps.
    #[serde(serialize_with = "number")]
    pub ms: f64,
    /// The same as a share of `step`.
    #[serde(serialize_with = "number")]
    pub share: f64,
    /// Floating-point operations a step, in 10⁹.
    #[serde(serialize_with = "maybe_number")]
    pub gflop: Option<f64>,
    /// Least traffic a step, in 10⁹ bytes: every operand read once, every result written once.
    #[serde(serialize_with = "maybe_number")]
    pub gbytes: Option<f64>,
    /// The least milliseconds it could take here, if what it touches comes from memory; of `step`, those of its
    /// parts, each as far as the part took that long.
    #[serde(serialize_with = "maybe_number")]
    pub floor_ms: Option<f64>,
    /// What sets that floor.
    pub bound: Option<Bound>,
    /// `floor_ms / ms`.
    #[serde(serialize_with = "maybe_number")]
    pub of_floor: Option<f64>,
}

/// What a part is held up by at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Its operations at the FMA peak.
    Compute,
    /// Its traffic at the bandwidth of a copy.
    Memory,
}

/// The five digits that a measurement has at most.
fn digits(number: f64) -> f64 {
    format!("{number:.4e}").parse().unwrap_or(number)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
pub(crate) fn number<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(digits(*number))
}

#[allow(clippy::ref_option, reason = "serde passes it so")]
pub(crate) fn maybe_number<S: serde::Serializer>(
    number: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    number.map(digits).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_flat_object_with_the_peers_keys() {
        let line = Line::Case(CaseLine {
            what: "sgemm",
            extent: Extent::Matrix(Shape { m: 1, k: 2, n: Some(3) }),
            threads: 2,
            isa: "avx2",
            rate: Rate(117.123_456, Unit::Gflops),
            backend: None,
            recipe: None,
            peak_share: 0.123_456_7,
        });
        assert_eq!(
            serde_json::to_string(&line).expect("plain data becomes JSON"),
            r#"{"what":"sgemm","m":1,"k":2,"n":3,"threads":2,"isa":"avx2","gflops":117.12,"backend":null,"recipe":null,"peak_share":0.12346}"#
        );
        let limit =
            Line::Limit(LimitLine { what: "copy", threads: 1, isa: "scalar", rate: Rate(9.0, Unit::Gbps) });
        assert_eq!(
            serde_json::to_string(&limit).expect("plain data becomes JSON"),
            r#"{"what":"copy","threads":1,"isa":"scalar","gbps":9.0}"#
        );
    }
}
