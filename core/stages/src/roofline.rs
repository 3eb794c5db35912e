//! How fast a card would train a model at most: its published peaks, the parts of them that programs like this one reach,
//! and the operations and bytes of a token. A prediction, no measurement: it says what to expect and whether FP8 pays.
//!
//! A micro-batch of M tokens takes the sum of its kernels' times, each at least 2 µs:
//!
//! * linear layers: their three products and, in FP8, their casts, as in [`crate::gain`];
//! * the output head: three products in bf16, and 14 bytes a logit;
//! * attention over sequences of T tokens: 2·T·d operations a token and block forward, 5·T·d backward;
//! * all that goes through memory: 3 · (20·h + 4·(q + kv) + 6·mlp) bytes a token and block.
//!
//! AdamW moves 28 bytes a parameter once an optimizer step.

use fp8flow_model::{ModelConfig, parameter_count};

use crate::gain::{self, Roof};
use crate::layer_plan::LayerPlan;

/// Part of a card's peak that the three products of a layer reach in the mean: an H100 and an H200 were measured at 1180 of
/// 1979 TFLOP/s in FP8, and at 665 of 989 in bf16.
const FP8_REACHES: f64 = 0.596;
const BF16_REACHES: f64 = 0.672;
/// Parts of the bf16 peak that attention reaches: an H200 was measured at 446 and 357 of 989.
const FORWARD_REACHES: f64 = 0.451;
const BACKWARD_REACHES: f64 = 0.361;
/// Part of the bandwidth that is reached: 2.9 of 3.35 TB/s.
const MEMORY_REACHES: f64 = 0.866;

/// Kernels of a block, forward and backward, beside products and attention.
const KERNELS: f64 = 20.0;

/// A card's published peaks: TFLOP/s of dense products in FP8 and bf16 with f32 sums, and TB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peaks {
    fp8: f64,
    bf16: f64,
    bandwidth: f64,
}

/// By a part of the driver's name for a card; the first that fits counts.
const CARDS: [(&str, Peaks); 8] = [
    ("H200 NVL", Peaks { fp8: 1671.0, bf16: 835.0, bandwidth: 4.8 }),
    ("H200", Peaks { fp8: 1979.0, bf16: 989.0, bandwidth: 4.8 }),
    ("H100 PCIe", Peaks { fp8: 1513.0, bf16: 756.0, bandwidth: 2.0 }),
    ("H100 NVL", Peaks { fp8: 1671.0, bf16: 835.0, bandwidth: 3.9 }),
    ("H100", Peaks { fp8: 1979.0, bf16: 989.0, bandwidth: 3.35 }),
    ("L40S", Peaks { fp8: 733.0, bf16: 362.0, bandwidth: 0.864 }),
    ("RTX 4090", Peaks { fp8: 330.0, bf16: 165.0, bandwidth: 1.008 }),
    ("NVIDIA L4", Peaks { fp8: 242.0, bf16: 121.0, bandwidth: 0.3 }),
];

impl Peaks {
    /// Those of the card that the driver calls `name`, if they are known.
    pub(crate) fn of(name: &str) -> Option<Self> {
        // `L4` is the beginning of other names.
        let fits = |part: &str| name.ends_with(part) || name.contains(&format!("{part} "));
        CARDS.iter().find(|(part, _)| fits(part)).map(|(_, peaks)| *peaks)
    }

    fn roof(&self) -> Roof {
        Roof {
            fp8: self.fp8 * 1e12 * FP8_REACHES,
            bf16: self.bf16 * 1e12 * BF16_REACHES,
            bandwidth: self.bandwidth * 1e12 * MEMORY_REACHES,
        }
    }
}

/// What is trained.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) layers: &'a LayerPlan,
    /// Tokens of a micro-batch.
    pub(crate) tokens: usize,
    /// Tokens of its sequences.
    pub(crate) length: usize,
    /// Micro-batches of a step.
    pub(crate) micro_batches: usize,
    /// Whether blocks run forward twice.
    pub(crate) recompute: bool,
}

/// Tokens a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    pub(crate) bf16: f64,
    /// As the layers are planned; none if a recipe is not known here, or no layer runs in FP8.
    pub(crate) fp8: Option<f64>,
}

impl Work<'_> {
    /// How fast a card with `peaks` would do it.
    pub(crate) fn speed(&self, peaks: &Peaks) -> Speed {
        let roof = peaks.roof();
        let linear = self.layers.layers.iter().filter(|layer| layer.facts.block.is_some());
        let (mut bf16, mut fp8, mut known) = (0.0, 0.0, self.layers.fp8().next().is_some());
        for layer in linear {
            let (n, k) = (layer.facts.out_features, layer.facts.in_features);
            let recipe = layer.recipe.and_then(|number| self.layers.recipes.get(number));
            let high = gain::high(&roof, self.tokens, n, k);
            bf16 += high;
            fp8 += match recipe.map(|choice| gain::in_fp8(&roof, &choice.recipe, self.tokens, n, k)) {
                None => high,
                Some(Ok(seconds)) => seconds,
                Some(Err(gain::Unpublished)) => {
                    known = false;
                    high
                }
            };
        }
        let again = if self.recompute { 4.0 / 3.0 } else { 1.0 };
        let rest = self.rest(peaks, &roof);
        let speed = |linear: f64| self.tokens as f64 / (again * linear + rest);
        Speed { bf16: speed(bf16), fp8: known.then(|| speed(fp8)) }
    }

    /// Seconds of a micro-batch outside of linear layers.
    fn rest(&self, peaks: &Peaks, roof: &Roof) -> f64 {
        let config = self.config;
        let [m, t, blocks] = [self.tokens, self.length, config.blocks].map(|n| n as f64);
        let [h, v, mlp] = [config.hidden_size, config.vocab_size, config.intermediate_size].map(|n| n as f64);
        let [q, kv] = [config.heads, config.kv_heads].map(|heads| (heads * config.head_dim) as f64);
        let head = gain::high(roof, self.tokens, config.vocab_size, config.hidden_size)
            + (14.0 * m * v / roof.bandwidth).max(gain::SHORTEST);
        let peak = peaks.bf16 * 1e12;
        let forwards = if self.recompute { 2.0 } else { 1.0 };
        let attention = (forwards * 2.0 * m * t * q / (peak * FORWARD_REACHES)).max(gain::SHORTEST)
            + (5.0 * m * t * q / (peak * BACKWARD_REACHES)).max(gain::SHORTEST);
        let bytes = (2.0 + forwards) * (20.0 * h + 4.0 * (q + kv) + 6.0 * mlp);
        let memory = (m * bytes / roof.bandwidth).max(KERNELS * gain::SHORTEST);
        let optimizer =
            28.0 * parameter_count(config) as f64 / roof.bandwidth / self.micro_batches.max(1) as f64;
        head + blocks * (attention + memory) + optimizer
    }
}

impl Speed {
    /// One line for people about micro-batches of so many tokens, or `exact`ly so many.
    pub(crate) fn line(&self, card: &str, tokens: u64, exact: bool) -> String {
        let thousands = |speed: f64| match speed {
            speed if speed >= 1e6 => format!("{:.1} M", speed / 1e6),
            speed if speed >= 1e4 => format!("{:.0} k", speed / 1e3),
            speed => format!("{speed:.0}"),
        };
        let full = if exact { "" } else { "full " };
        let predicted = format!("predicted for {full}micro-batches of {tokens} tokens");
        let basis = format!("from the published peaks of {card}, not measured");
        match self.fp8 {
            None => format!("speed: {} tokens/s {predicted}, {basis}", thousands(self.bf16)),
            Some(fp8) => {
                let gain = fp8 / self.bf16;
                let verdict = if gain < 1.0 {
                    format!(
                        "FP8 will not pay, {} as fast: take larger micro-batches, or keep small layers out (`min_gain`)",
                        gain::shown(gain)
                    )
                } else {
                    format!("{} as fast as bf16", gain::shown(gain))
                };
                format!("speed: {} tokens/s {predicted}, {verdict}; {basis}", thousands(fp8))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fp8flow_model::linear_layers;
    use serde_json::{Map, json};

    use super::*;
    use crate::layer_plan::{PlannedLayer, RecipeChoice};

    fn config(hidden: usize, mlp: usize, blocks: usize, heads: [usize; 2], vocabulary: usize) -> ModelConfig {
        let text = json!({
            "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": mlp,
            "num_hidden_layers": blocks, "num_attention_heads": heads[0], "num_key_value_heads": heads[1],
            "hidden_act": "silu", "max_position_embeddings": 8192,
        });
        ModelConfig::from_json(&text.to_string(), Path::new("config.json")).expect("a configuration")
    }

    fn planned(config: &ModelConfig, recipe: &str) -> LayerPlan {
        let layers = linear_layers(config, None).into_iter().map(|facts| {
            let fp8 = facts.block.is_some();
            let precision = if fp8 { fp8flow_sdk::Precision::Fp8 } else { fp8flow_sdk::Precision::High };
            let decision =
                fp8flow_sdk::Decision { precision, reason: String::new(), fp8_gemms: [u8::from(fp8); 3] };
            PlannedLayer { facts, decision, recipe: fp8.then_some(0), gain: None }
        });
        let options = fp8flow_sdk::Options(Map::new());
        LayerPlan { recipes: vec![RecipeChoice { recipe: recipe.into(), options }], layers: layers.collect() }
    }

    fn speed(
        config: &ModelConfig,
        recipe: &str,
        card: &str,
        tokens: usize,
        length: usize,
        micros: usize,
    ) -> Speed {
        let layers = planned(config, recipe);
        let work = Work { config, layers: &layers, tokens, length, micro_batches: micros, recompute: false };
        work.speed(&Peaks::of(card).expect("a known card"))
    }

    const H100: &str = "NVIDIA H100 80GB HBM3";

    #[test]
    fn what_was_measured_is_predicted() {
        // Tokens a second of steps of 8192 tokens on an H200, in FP8 and without.
        let (eight, one) =
            (config(4096, 14336, 16, [32, 8], 128256), config(2048, 8192, 16, [32, 8], 128256));
        for (name, config, recipe, length, fp8, bf16) in [
            ("8b", &eight, "rowwise", 2048, 27_276.0, 21_216.0),
            ("8b", &eight, "delayed", 2048, 28_978.0, 21_216.0),
            ("8b", &eight, "rowwise", 8192, 23_540.0, 18_615.0),
            ("8b", &eight, "delayed", 8192, 24_292.0, 18_615.0),
            ("1b", &one, "rowwise", 2048, 72_756.0, 61_599.0),
            ("1b", &one, "delayed", 2048, 75_769.0, 61_599.0),
        ] {
            let found = speed(config, recipe, "NVIDIA H200", 8192, length, 1);
            println!("{name} {recipe} {length}: {found:?}, measured {fp8} and {bf16}");
            let near = |found: f64, measured: f64| (0.95..1.1).contains(&(found / measured));
            assert!(near(found.fp8.expect("known"), fp8), "{name} {recipe} {length}: {found:?}");
            assert!(near(found.bf16, bf16), "{name} {recipe} {length}: {found:?}");
        }
        let ada = speed(&eight, "delayed", "NVIDIA GeForce RTX 4090", 8192, 8192, 1);
        assert!(ada.fp8.expect("known") < 0.3 * 24_292.0, "{ada:?}");
        let line = |exact| speed(&eight, "delayed", H100, 8192, 8192, 32).line("H100", 8192, exact);
        assert!(line(true).starts_with("speed: 2"), "{}", line(true));
        for (exact, words) in [(true, "for micro-batches of 8192"), (false, "for full micro-batches of 8192")]
        {
            assert!(
                line(exact).contains(&format!("k tokens/s predicted {words} tokens, ")),
                "{}",
                line(exact)
            );
        }
    }

    #[test]
    fn small_layers_are_said_not_to_pay() {
        let tiny = config(256, 512, 4, [4, 4], 512);
        let found = speed(&tiny, "current", H100, 512, 128, 32);
        assert!(found.fp8.expect("known") < found.bf16, "{found:?}");
        let line = found.line("H100", 512, true);
        assert!(line.contains("FP8 will not pay, 0."), "{line}");
    }

    #[test]
    fn what_is_not_known_is_not_predicted() {
        assert_eq!(speed(&config(256, 512, 4, [4, 4], 512), "mine", H100, 512, 128, 32).fp8, None);
        assert_eq!(Peaks::of("NVIDIA GeForce RTX 4060"), None);
        assert_eq!(Peaks::of("NVIDIA L40"), None);
        assert_eq!(Peaks::of("NVIDIA L4").map(|peaks| peaks.bf16), Some(121.0));
        assert_eq!(Peaks::of("NVIDIA H100 PCIe").map(|peaks| peaks.bf16), Some(756.0));
        assert_eq!(Peaks::of(H100).map(|peaks| peaks.bf16), Some(989.0));
    }
}
