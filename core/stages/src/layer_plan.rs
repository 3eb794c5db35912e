//! Which linear layers run in FP8 and why: the decision list, an artifact of `layers.filter`, printed by `plan`,
//! stored with the run and held against the counters after it.

use std::fmt::Write as _;

use fp8flow_model::{ModelConfig, OUTPUT_HEAD, linear_layers};
use fp8flow_sdk::{Decision, LayerFacts, Precision, Recipe};
use serde::{Deserialize, Serialize};

/// The rule that says which layers are offered to the recipe at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterRule {
    /// Layers whose lower-cased name contains one of these words stay in high precision.
    pub skip: Vec<String>,
    /// Both dimensions of a weight must be multiples of this.
    pub multiple_of: usize,
}

/// One layer and its decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// The layer.
    #[serde(flatten)]
    pub facts: LayerFacts,
    /// Its precision, with the reason.
    #[serde(flatten)]
    pub decision: Decision,
}

/// Every linear layer of a model, decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// In the model's order.
    pub layers: Vec<PlannedLayer>,
}

impl FilterRule {
    /// Why `layer` is kept from the recipe, if it is.
    fn objection(&self, layer: &LayerFacts) -> Option<String> {
        let name = layer.name.to_lowercase();
        if let Some(word) = self.skip.iter().find(|word| name.contains(&word.to_lowercase())) {
            return Some(format!("its name contains `{word}`"));
        }
        let m = self.multiple_of;
        for (what, n) in [("in_features", layer.in_features), ("out_features", layer.out_features)] {
            if m > 1 && !n.is_multiple_of(m) {
                return Some(format!("{what} = {n} is not a multiple of {m}"));
            }
        }
        None
    }
}

impl LayerPlan {
    /// Decides every layer: first the rule, then the recipe; without a recipe all stay in high precision.
    pub fn decide(layers: Vec<LayerFacts>, rule: &FilterRule, recipe: Option<&dyn Recipe>) -> Self {
        let high = |reason: String| Decision { precision: Precision::High, reason, fp8_gemms: [0; 3] };
        let layers = layers.into_iter().map(|facts| {
            let decision = match (rule.objection(&facts), recipe) {
                (Some(reason), _) => high(reason),
                _ if facts.name == OUTPUT_HEAD => high("the output head is part of the loss".into()),
                (None, None) => high("no FP8 backend (plugin = \"none\")".into()),
                (None, Some(recipe)) => recipe.decide(&facts),
            };
            PlannedLayer { facts, decision }
        });
        Self { layers: layers.collect() }
    }

    /// Whether it is about a model of `config`: the same layers in the same order.
    pub fn fits(&self, config: &ModelConfig) -> bool {
        let shape = |facts: &LayerFacts| (facts.name.clone(), facts.in_features, facts.out_features);
        self.layers.iter().map(|layer| shape(&layer.facts)).eq(linear_layers(config, None).iter().map(shape))
    }

    /// The layers decided as FP8.
    pub fn fp8(&self) -> impl Iterator<Item = &PlannedLayer> {
        self.layers.iter().filter(|layer| layer.decision.precision == Precision::Fp8)
    }

    /// Share of the linear layers' FLOPs, forward and backward, that run in FP8 GEMMs.
    pub fn fp8_share(&self) -> f64 {
        let flops = |layer: &PlannedLayer| layer.facts.in_features as f64 * layer.facts.out_features as f64;
        let gemms =
            |layer: &PlannedLayer| layer.decision.fp8_gemms.iter().map(|&n| f64::from(n)).sum::<f64>();
        let total = self.layers.iter().fold(0.0, |sum, layer| sum + 3.0 * flops(layer));
        let fp8 = self.fp8().fold(0.0, |sum, layer| sum + flops(layer) * gemms(layer));
        if total == 0.0 { 0.0 } else { fp8 / total }
    }

    /// A table for the terminal: one line a layer, blocks that are alike folded into one line.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let total = self.layers.len();
        let _ = writeln!(
            out,
            "{} of {total} linear layers in FP8, {:.1} % of their FLOPs",
            self.fp8().count(),
            100.0 * self.fp8_share()
        );
        for row in self.folded() {
            let precision = if row.fp8 { "fp8" } else { "high" };
            let _ = writeln!(
                out,
                "  {precision:<5}{:<44}{:>6} × {:<7}{}",
                row.name, row.out, row.in_, row.reason
            );
        }
        out
    }

    /// Rows of the table: layers that differ only in their block's number share one.
    fn folded(&self) -> Vec<Row> {
        let mut rows: Vec<(String, Vec<usize>, Row)> = Vec::new();
        for layer in &self.layers {
            let facts = &layer.facts;
            let fp8 = layer.decision.precision == Precision::Fp8;
            let pattern = match facts.block {
                Some(block) => facts.name.replacen(&format!(".{block}."), ".{}.", 1),
                None => facts.name.clone(),
            };
            let row = Row {
                name: facts.name.clone(),
                fp8,
                out: facts.out_features,
                in_: facts.in_features,
                reason: layer.decision.reason.clone(),
            };
            let same = |(p, _, r): &&mut (String, Vec<usize>, Row)| {
                *p == pattern && (r.fp8, r.out, r.in_, &r.reason) == (row.fp8, row.out, row.in_, &row.reason)
            };
            match (facts.block, rows.iter_mut().find(same)) {
                (Some(block), Some((_, blocks, _))) => blocks.push(block),
                _ => rows.push((pattern, facts.block.into_iter().collect(), row)),
            }
        }
        rows.into_iter()
            .map(|(pattern, blocks, mut row)| {
                if blocks.len() > 1 {
                    row.name = pattern.replacen("{}", &ranges(&blocks), 1);
                }
                row
            })
            .collect()
    }
}

struct Row {
    name: String,
    fp8: bool,
    out: usize,
    in_: usize,
    reason: String,
}

/// `[0, 1, 2, 5]` as `{0-2,5}`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => parts.push((n, n)),
        }
    }
    let parts: Vec<String> =
        parts.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, block: Option<usize>, n: usize, k: usize) -> LayerFacts {
        LayerFacts {
            name: name.into(),
            in_features: k,
            out_features: n,
            tokens: None,
            block,
            group: vec![name.into()],
        }
    }

    fn rule() -> FilterRule {
        FilterRule {
            skip: ["embed", "lm_head", "output", "classifier"].map(String::from).into(),
            multiple_of: 16,
        }
    }

    struct Always;

    impl Recipe for Always {
        fn describe(&self) -> serde_json::Value {
            serde_json::json!({})
        }
        fn decide(&self, _: &LayerFacts) -> Decision {
            Decision { precision: Precision::Fp8, reason: "asked".into(), fp8_gemms: [1, 1, 0] }
        }
        fn linear(&mut self, _: &LayerFacts) -> fp8flow_sdk::Result<Box<dyn fp8flow_sdk::Linear>> {
            Err(fp8flow_sdk::Error::unsupported("not in this test"))
        }
        fn on(&mut self, _: fp8flow_sdk::Event) -> fp8flow_sdk::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_reference_rule_skips_by_name_and_by_dimension() {
        let layers = vec![
            layer("model.layers.0.self_attn.q_proj", Some(0), 64, 64),
            layer("model.layers.0.attention.output.dense", Some(0), 64, 64),
            layer("model.layers.0.mlp.up_proj", Some(0), 100, 64),
            layer("lm_head", None, 512, 64),
        ];
        let plan = LayerPlan::decide(layers, &rule(), Some(&Always));
        let reasons: Vec<_> = plan.layers.iter().map(|l| l.decision.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "asked",
                "its name contains `output`",
                "out_features = 100 is not a multiple of 16",
                "its name contains `lm_head`"
            ]
        );
        assert_eq!(plan.fp8().count(), 1);
    }

    #[test]
    fn the_share_counts_each_gemm() {
        let plan = LayerPlan::decide(
            vec![layer("a", None, 16, 16), layer("lm_head", None, 16, 16)],
            &rule(),
            Some(&Always),
        );
        assert!((plan.fp8_share() - 2.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn without_a_backend_nothing_is_fp8_and_the_plan_says_why() {
        let plan = LayerPlan::decide(vec![layer("a", None, 16, 16)], &rule(), None);
        assert_eq!(plan.fp8().count(), 0);
        assert!(plan.layers[0].decision.reason.contains("no FP8 backend"));
        assert!(plan.table().starts_with("0 of 1 linear layers in FP8, 0.0 %"), "{}", plan.table());
    }

    #[test]
    fn blocks_that_are_alike_share_a_line() {
        let layers = (0..4).map(|b| {
            layer(&format!("model.layers.{b}.mlp.up_proj"), Some(b), 64, if b == 2 { 48 } else { 64 })
        });
        let table = LayerPlan::decide(layers.collect(), &rule(), Some(&Always)).table();
        assert!(table.contains("model.layers.{0-1,3}.mlp.up_proj"), "{table}");
        assert!(table.contains("model.layers.2.mlp.up_proj"), "{table}");
    }
}
