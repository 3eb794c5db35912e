//! What goes with what: a row for every recipe and class of device, and what a workflow may not ask of it.
//!
//! One table. The checks of `[backend]`, the advice of `fp8flow doctor` and the page `docs/src/reference/support.md`
//! are read from it. A plugin of somebody else is not in it, and says for itself what it takes.
//!
//! The needs of a card are those of NVIDIA's libraries: cuBLASLt for the scaled products, and Transformer Engine's and
//! torchao's own gates where they ask for more.

mod card_needs;
mod objection;
mod page;

use std::fmt;

pub(crate) use card_needs::{ADA, HOPPER};
pub use card_needs::{CardNeeds, Version};
pub(crate) use objection::{ALL_GATHER, Objection, objections, on_card, unfit, without_fp8};
pub use page::markdown;

/// The words for FP8 on top of weights that are quantised already.
pub(crate) const QUANTIZED_BASE: &str =
    "FP8 training is not compatible with quantization. Please disable one of them.";

/// The words for every kind of training that is asked for and is not there.
const ONLY_SFT_AND_PT: &str = "FP8 training is there for train.sft and train.pt";

/// Kinds of training known from elsewhere, which there are not, and what is said of them.
pub(crate) const ELSEWHERE: [(&str, &str); 4] = [
    ("train.dpo", ONLY_SFT_AND_PT),
    ("train.kto", ONLY_SFT_AND_PT),
    ("train.ppo", ONLY_SFT_AND_PT),
    ("train.rm", ONLY_SFT_AND_PT),
];

/// Memory of a card below which training is cramped, in bytes.
pub const RECOMMENDED_CARD_MEMORY: u64 = 24_000_000_000;

/// The oldest CUDA that any recipe takes.
pub const OLDEST_CUDA: Version = Version(12, 0);

/// A class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    /// x86-64 processors.
    Cpu,
    /// NVIDIA cards.
    Cuda,
}

/// Elements that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// A tensor's.
    Tensor,
    /// A row's, along the contraction.
    Row,
    /// 1 × 128 of activations and gradients, 128 × 128 of weights.
    Block,
}

/// A recipe on a class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The plugin.
    pub plugin: &'static str,
    /// The recipe.
    pub recipe: &'static str,
    /// Where.
    pub device: DeviceClass,
    /// What shares a scale.
    pub granularity: Granularity,
    /// Formats of activations and weights, and of gradients.
    pub formats: [&'static str; 2],
    /// What both dimensions of a layer's weight must be multiples of; others stay in high precision.
    pub dimensions: usize,
    /// What the tokens of a micro-batch must be multiples of.
    pub tokens: usize,
    /// What it needs of a card; none for a processor.
    pub card: Option<CardNeeds>,
}

/// What a workflow can ask beside a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// It runs at all.
    Runs,
    /// `recompute = "block"`.
    Recompute,
    /// Several micro-batches a step.
    MicroBatches,
    /// `float8_all_gather = true`.
    AllGather,
    /// E5M2 for activations and weights.
    E5m2Forward,
    /// A base in FP8 blocks, with `dequantize = true`.
    BlockBase,
    /// A base quantised in any other way.
    QuantizedBase,
}

/// Whether it goes, and if not, why.
pub type Verdict = Result<(), &'static str>;

/// On Ada the libraries have FP8 from this CUDA on.
const FP8_ON_ADA: Version = Version(12, 1);

const fn cpu(
    plugin: &'static str,
    recipe: &'static str,
    granularity: Granularity,
    formats: [&'static str; 2],
    dimensions: usize,
) -> Row {
    Row { plugin, recipe, device: DeviceClass::Cpu, granularity, formats, dimensions, tokens: 1, card: None }
}

/// The same recipe on cards from `oldest` to Hopper.
const fn on(row: Row, oldest: Version, [cuda, cuda_on_hopper]: [Version; 2]) -> Row {
    // The kernels are written for these, and compiled for no other.
    let card = CardNeeds { oldest, newest: Some(HOPPER), cuda, cuda_on_hopper };
    Row { device: DeviceClass::Cuda, card: Some(card), ..row }
}

const TORCHAO: &str = "torchao-rowwise";
const HYBRID: &str = "transformer-engine-hybrid";
const E4M3: [&str; 2] = ["E4M3", "E4M3"];
const E4M3_E5M2: [&str; 2] = ["E4M3", "E5M2"];

const ROWWISE: Row = cpu(TORCHAO, "rowwise", Granularity::Row, E4M3, 16);
const TENSORWISE: Row = cpu(TORCHAO, "tensorwise", Granularity::Tensor, E4M3_E5M2, 16);
const GW_HP: Row = cpu(TORCHAO, "rowwise_with_gw_hp", Granularity::Row, E4M3, 16);
const DELAYED: Row = cpu(HYBRID, "delayed", Granularity::Tensor, E4M3_E5M2, 16);
const CURRENT: Row = cpu(HYBRID, "current", Granularity::Tensor, E4M3_E5M2, 16);
const BLOCKWISE: Row = cpu(HYBRID, "blockwise", Granularity::Block, E4M3, 128);

/// Every recipe that comes with fp8flow, on every class of devices.
pub const MATRIX: [Row; 12] = [
    ROWWISE,
    TENSORWISE,
    GW_HP,
    DELAYED,
    CURRENT,
    BLOCKWISE,
    // cuBLASLt has a scale a row on Hopper alone, from CUDA 12.9; on Ada a kernel of fp8flow multiplies.
    on(ROWWISE, ADA, [FP8_ON_ADA, Version(12, 9)]),
    on(TENSORWISE, ADA, [FP8_ON_ADA, OLDEST_CUDA]),
    on(GW_HP, ADA, [FP8_ON_ADA, Version(12, 9)]),
    on(DELAYED, ADA, [FP8_ON_ADA, OLDEST_CUDA]),
    on(CURRENT, ADA, [FP8_ON_ADA, OLDEST_CUDA]),
    on(BLOCKWISE, HOPPER, [Version(12, 9); 2]),
];

impl Feature {
    /// All of them, as they stand in the page.
    pub const ALL: [Self; 7] = [
        Self::Runs,
        Self::Recompute,
        Self::MicroBatches,
        Self::AllGather,
        Self::E5m2Forward,
        Self::BlockBase,
        Self::QuantizedBase,
    ];

    /// In a few words.
    fn about(self) -> &'static str {
        match self {
            Self::Runs => "runs in this version",
            Self::Recompute => "`recompute = \"block\"`: the same bits",
            Self::MicroBatches => "several micro-batches a step",
            Self::AllGather => "`float8_all_gather = true`",
            Self::E5m2Forward => "E5M2 for activations and weights",
            Self::BlockBase => "a base in FP8 blocks, `dequantize = true`",
            Self::QuantizedBase => "a base quantised in any other way",
        }
    }
}

impl Row {
    /// Whether `feature` goes with this recipe here.
    pub fn verdict(&self, feature: Feature) -> Verdict {
        match (feature, self.device) {
            (Feature::AllGather, _) if self.granularity != Granularity::Tensor => Err(ONLY_TENSORWISE),
            (Feature::AllGather, _) => Err(ONE_PROCESS),
            (Feature::E5m2Forward, _) => Err(NO_E5M2_FORWARD),
            (Feature::QuantizedBase, _) => Err(QUANTIZED_BASE),
            (Feature::Runs | Feature::Recompute | Feature::MicroBatches | Feature::BlockBase, _) => Ok(()),
        }
    }
}

/// Which cards fp8flow has run on, after "fp8flow is".
pub(crate) const CHECKED_ON: &str =
    "checked on an NVIDIA H100 and an H200, on an Ada only as an emulated card";
const ONLY_TENSORWISE: &str = "FP8 all-gather needs one scale a tensor: rows and blocks are scaled along one way, and backward needs the other";
const ONE_PROCESS: &str = "this version of fp8flow trains in one process: there is nothing to gather";
const NO_E5M2_FORWARD: &str =
    "activations and weights need the third mantissa bit of E4M3, and no tensor core multiplies E5M2 by E5M2";

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensor => "one a tensor",
            Self::Row => "one a row",
            Self::Block => "one a block",
        })
    }
}

/// The row of a recipe, if its plugin is one that comes with fp8flow.
pub fn row(plugin: &str, recipe: &str, device: DeviceClass) -> Option<&'static Row> {
    MATRIX.iter().find(|row| (row.plugin, row.recipe, row.device) == (plugin, recipe, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_stands_once_for_every_class_of_devices() {
        for row in MATRIX {
            let same = |other: &&Row| (other.plugin, other.recipe) == (row.plugin, row.recipe);
            let devices: Vec<_> = MATRIX.iter().filter(same).map(|row| row.device).collect();
            assert_eq!(devices, [DeviceClass::Cpu, DeviceClass::Cuda], "{}", row.recipe);
            assert_eq!(row.card.is_some(), row.device == DeviceClass::Cuda);
        }
    }
}
