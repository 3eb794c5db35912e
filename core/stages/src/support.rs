//! What goes with what: a row for every recipe and class of device, and what a workflow may not ask of it.
//!
//! One table. The checks of `[backend]`, the advice of `fp8flow doctor` and the page `docs/src/reference/support.md`
//! are read from it. A plugin of somebody else is not in it, and says for itself what it takes.
//!
//! The needs of a card are those of NVIDIA's libraries: cuBLASLt for the scaled products, and Transformer Engine's and
//! torchao's own gates where they ask for more.

mod page;

use std::fmt;

use fp8flow_flow::Class;
use fp8flow_sdk::RecipeInfo;
use fp8flow_tensor::{Architecture, Card, Properties};
use serde_json::{Map, Value};

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

/// A version, or a compute capability: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// What a recipe needs of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardNeeds {
    /// The oldest compute capability.
    pub oldest: Version,
    /// The newest, where later ones lack what it needs.
    pub newest: Option<Version>,
    /// The oldest CUDA on cards older than Hopper.
    pub cuda: Version,
    /// The oldest CUDA on Hopper.
    pub cuda_on_hopper: Version,
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

pub(crate) const ADA: Version = Version(8, 9);
pub(crate) const HOPPER: Version = Version(9, 0);
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

impl CardNeeds {
    /// Why a card of `capability` is of no use to it, if so.
    pub fn objection(&self, capability: Version) -> Option<String> {
        match self.newest {
            _ if capability < self.oldest => {
                Some(format!("needs compute capability {} or higher", self.oldest))
            }
            Some(newest) if capability > newest => Some(format!("needs compute capability {}", self.range())),
            _ => None,
        }
    }

    /// Why a driver for `cuda` is too old for it on a card of `capability`, if so.
    pub fn driver_objection(&self, capability: Version, cuda: Version) -> Option<String> {
        let oldest = if capability < HOPPER { self.cuda } else { self.cuda_on_hopper };
        (cuda < oldest).then(|| format!("needs CUDA {oldest}"))
    }

    fn range(&self) -> String {
        match self.newest {
            Some(newest) if newest == self.oldest => newest.to_string(),
            Some(newest) => format!("{} to {newest}", self.oldest),
            None => format!("{} or higher", self.oldest),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

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

/// The keys that are objected to.
pub(crate) const ALL_GATHER: &str = "float8_all_gather";
const FORMAT: &str = "format";
const RECIPE: &str = "recipe";

/// Something in `[backend]` that does not go together, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) help: String,
    /// Whether to change the workflow or the machine.
    pub(crate) class: Class,
}

/// Objections to `recipe` of `plugin` on `card`.
pub(crate) fn on_card(plugin: &str, recipe: &str, card: &Card) -> Option<Objection> {
    let Properties { name, architecture, .. } = card.properties();
    let reason = unfit(plugin, recipe, *architecture)?;
    let fits = |row: &&Row| row.card.is_some() && unfit(row.plugin, row.recipe, *architecture).is_none();
    let fits: Vec<&str> = MATRIX.iter().filter(fits).map(|row| row.recipe).collect();
    Some(Objection {
        key: RECIPE,
        message: format!("recipe `{recipe}` does not run on {name}: it {reason}"),
        help: format!("Use one of {} on this card.", fits.join(", ")),
        class: Class::Missing,
    })
}

/// Why a recipe does not run on cards of `architecture`, if the table says so.
fn unfit(plugin: &str, recipe: &str, architecture: Architecture) -> Option<String> {
    let capability = match architecture {
        Architecture::Ada => ADA,
        Architecture::Hopper => HOPPER,
    };
    row(plugin, recipe, DeviceClass::Cuda)?.card?.objection(capability)
}

/// Objections to a workflow without FP8.
pub(crate) fn without_fp8(all_gather: bool) -> Option<Objection> {
    all_gather.then(|| Objection {
        key: ALL_GATHER,
        message: "FP8 all-gather needs FP8, and `plugin = \"none\"` leaves nothing in FP8 to gather".into(),
        help: "Remove `float8_all_gather`, or name an FP8 plugin.".into(),
        class: Class::Invalid,
    })
}

/// Objections to `recipe` of `plugin` with the `options` as they were written.
pub(crate) fn objections(
    plugin: &str,
    recipe: &RecipeInfo,
    options: &Map<String, Value>,
    all_gather: bool,
) -> Vec<Objection> {
    let mut found = Vec::new();
    let row = row(plugin, &recipe.name, DeviceClass::Cpu);
    if all_gather {
        // Of a recipe that is not in the table nothing is known but that it runs in one process.
        let verdict = row.map_or(Err(ONE_PROCESS), |row| row.verdict(Feature::AllGather));
        if let Err(reason) = verdict {
            let other = if reason == ONLY_TENSORWISE { " `tensorwise` has one scale a tensor." } else { "" };
            let message = format!("recipe `{}`: {reason}", recipe.name);
            let help = format!("Remove `float8_all_gather`.{other}");
            found.push(Objection { key: ALL_GATHER, message, help, class: Class::Invalid });
        }
    }
    let takes_format = recipe.options.iter().any(|option| option.name == FORMAT);
    let format = options.get(FORMAT).and_then(Value::as_str).unwrap_or_default();
    if takes_format && format.eq_ignore_ascii_case("e5m2") {
        found.push(Objection {
            key: "options.format",
            message: format!("`{format}` in the forward is not supported: {NO_E5M2_FORWARD}"),
            help: "Use `format = \"HYBRID\"`: E4M3 for activations and weights, E5M2 for gradients.".into(),
            class: Class::Invalid,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use fp8flow_sdk::{OptionField, OptionKind};
    use serde_json::json;

    use super::*;

    fn recipe(name: &str, options: &[&str]) -> RecipeInfo {
        let field = |name: &&str| OptionField {
            name: (*name).into(),
            kind: OptionKind::Choice { values: vec!["HYBRID".into(), "E4M3".into()] },
            default: json!("HYBRID"),
            about: String::new(),
        };
        RecipeInfo { name: name.into(), about: String::new(), options: options.iter().map(field).collect() }
    }

    fn found(plugin: &str, recipe: &RecipeInfo, options: &Value, all_gather: bool) -> Vec<String> {
        let options = options.as_object().cloned().unwrap_or_default();
        let objections = objections(plugin, recipe, &options, all_gather);
        objections.into_iter().map(|o| format!("{}: {} {}", o.key, o.message, o.help)).collect()
    }

    #[test]
    fn every_recipe_stands_once_for_every_class_of_devices() {
        for row in MATRIX {
            let same = |other: &&Row| (other.plugin, other.recipe) == (row.plugin, row.recipe);
            let devices: Vec<_> = MATRIX.iter().filter(same).map(|row| row.device).collect();
            assert_eq!(devices, [DeviceClass::Cpu, DeviceClass::Cuda], "{}", row.recipe);
            assert_eq!(row.card.is_some(), row.device == DeviceClass::Cuda);
        }
    }

    #[test]
    fn all_gather_needs_fp8_then_one_scale_a_tensor_then_several_processes() {
        assert_eq!(without_fp8(false), None);
        assert!(without_fp8(true).unwrap().message.contains("needs FP8"));
        for (plugin, name, words) in [
            (TORCHAO, "rowwise", "needs one scale a tensor"),
            (TORCHAO, "rowwise_with_gw_hp", "needs one scale a tensor"),
            (HYBRID, "blockwise", "needs one scale a tensor"),
            (TORCHAO, "tensorwise", "nothing to gather"),
            (HYBRID, "delayed", "nothing to gather"),
            ("somebodys", "own", "nothing to gather"),
        ] {
            let recipe = recipe(name, &[]);
            assert!(found(plugin, &recipe, &json!({}), false).is_empty());
            let found = found(plugin, &recipe, &json!({}), true);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("float8_all_gather: ") && found[0].contains(words), "{found:?}");
            assert_eq!(found[0].contains("`tensorwise` has"), words.contains("one scale"), "{found:?}");
        }
    }

    #[test]
    fn e5m2_in_the_forward_is_refused_with_the_reason_and_the_format_to_use() {
        let with_format = recipe("delayed", &["margin", "format"]);
        for word in ["E5M2", "e5m2"] {
            let found = found(HYBRID, &with_format, &json!({ "format": word }), false);
            assert_eq!(found.len(), 1, "{found:?}");
            let known =
                ["options.format: ", word, "third mantissa bit", "E5M2 by E5M2", "format = \"HYBRID\""];
            assert!(known.iter().all(|words| found[0].contains(words)), "{found:?}");
        }
        assert!(found(HYBRID, &with_format, &json!({ "format": "HYBRID" }), false).is_empty());
        // Where there is no such option, that is what is wrong.
        assert!(found(TORCHAO, &recipe("rowwise", &[]), &json!({ "format": "E5M2" }), false).is_empty());
    }

    #[test]
    fn cards_are_judged_by_their_compute_capability() {
        let needs = |recipe| row(TORCHAO, recipe, DeviceClass::Cuda).unwrap().card.unwrap();
        let (rowwise, tensorwise) = (needs("rowwise"), needs("tensorwise"));
        assert_eq!(
            [rowwise.objection(HOPPER), rowwise.objection(ADA), tensorwise.objection(ADA)],
            [const { None }; 3]
        );
        let old = "needs compute capability 8.9 or higher";
        assert_eq!(tensorwise.objection(Version(8, 0)).as_deref(), Some(old));
        let new = "needs compute capability 8.9 to 9.0";
        assert_eq!(rowwise.objection(Version(10, 0)).as_deref(), Some(new));
        let blockwise = row(HYBRID, "blockwise", DeviceClass::Cuda).unwrap().card.unwrap();
        let hopper = "needs compute capability 9.0 or higher";
        assert_eq!(blockwise.objection(ADA).as_deref(), Some(hopper));
        assert_eq!(unfit(HYBRID, "blockwise", Architecture::Ada).as_deref(), Some(hopper));
        assert_eq!(unfit(HYBRID, "blockwise", Architecture::Hopper), None);
        assert_eq!(unfit("somebodys", "blockwise", Architecture::Ada), None);
    }

    #[test]
    fn drivers_are_judged_by_the_card_they_drive() {
        let rowwise = row(TORCHAO, "rowwise", DeviceClass::Cuda).unwrap().card.unwrap();
        assert_eq!(rowwise.driver_objection(ADA, Version(12, 1)), None);
        assert_eq!(rowwise.driver_objection(HOPPER, Version(12, 8)).as_deref(), Some("needs CUDA 12.9"));
        assert_eq!(rowwise.driver_objection(HOPPER, Version(13, 0)), None);
    }
}
