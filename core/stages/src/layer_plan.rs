//! Which linear layers run in FP8, under which recipe, and why: the decision list, an artifact of `layers.filter`,
//! printed by `plan`, stored with the run and held against the counters after it.

mod menu;
mod rule;
mod table;

use fp8flow_model::{ModelConfig, OUTPUT_HEAD, linear_layers};
use fp8flow_sdk::{Decision, LayerFacts, Precision};
use serde::{Deserialize, Serialize};

pub use menu::{Menu, RecipeChoice};
pub use rule::FilterRule;

use crate::gain::{self, MinGain};

/// One layer and its decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// The layer. Its group holds the layers that share the cast of its input: those that run in FP8 under the same
    /// recipe.
    #[serde(flatten)]
    pub facts: LayerFacts,
    /// Its precision, with the reason.
    #[serde(flatten)]
    pub decision: Decision,
    /// Which of the plan's recipes it runs under, if in FP8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<usize>,
    /// Its predicted speedup, where `min_gain` asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// Every linear layer of a model, decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// The recipes that FP8 layers run under.
    #[serde(default)]
    pub recipes: Vec<RecipeChoice>,
    /// In the model's order.
    pub layers: Vec<PlannedLayer>,
}

/// Who decides about the layers that the rule lets through.
#[derive(Clone, Copy)]
pub enum Offer<'a> {
    /// Nobody: all stay in high precision, for this reason.
    Nobody(&'a str),
    /// A recipe each.
    Recipes(&'a Menu),
}

impl LayerPlan {
    /// Decides every layer: first the rule, then whom it is offered to.
    pub fn decide(layers: Vec<LayerFacts>, rule: &FilterRule, offer: Offer<'_>) -> Self {
        let blocks = layers.iter().filter_map(|layer| layer.block).max().map_or(0, |last| last + 1);
        let decide = |facts: LayerFacts| {
            let high = |reason: String| Decision { precision: Precision::High, reason, fp8_gemms: [0; 3] };
            let plan = |decision| PlannedLayer { facts: facts.clone(), decision, recipe: None, gain: None };
            if let Some(objection) = rule.objection(&facts, blocks) {
                return plan(high(objection));
            }
            if facts.name == OUTPUT_HEAD {
                return plan(high("the output head is part of the loss".into()));
            }
            let menu = match offer {
                Offer::Nobody(why) => return plan(high(why.into())),
                Offer::Recipes(menu) => menu,
            };
            let number = menu.number_of(&facts.name);
            let (objection, gain) = too_small(&facts, rule, &menu.choices()[number].recipe);
            if let Some(objection) = objection {
                return PlannedLayer { gain, ..plan(high(objection)) };
            }
            let decision = menu.recipe(number).decide(&facts);
            let recipe = (decision.precision == Precision::Fp8).then_some(number);
            PlannedLayer { recipe, gain, ..plan(decision) }
        };
        let mut plan = Self { recipes: Vec::new(), layers: layers.into_iter().map(decide).collect() };
        if let Offer::Recipes(menu) = offer {
            plan.keep_used(menu.choices());
        }
        plan.share_casts();
        plan
    }

    /// Keeps the recipes that some layer runs under, and numbers them afresh.
    fn keep_used(&mut self, choices: &[RecipeChoice]) {
        let mut used: Vec<usize> = self.layers.iter().filter_map(|layer| layer.recipe).collect();
        used.sort_unstable();
        used.dedup();
        self.recipes = used.iter().map(|&number| choices[number].clone()).collect();
        for layer in &mut self.layers {
            layer.recipe = layer.recipe.and_then(|old| used.iter().position(|&number| number == old));
        }
    }

    /// Leaves in each layer's group those that share its cast.
    fn share_casts(&mut self) {
        let recipes: Vec<(String, Option<usize>)> =
            self.layers.iter().map(|layer| (layer.facts.name.clone(), layer.recipe)).collect();
        for PlannedLayer { facts, recipe, .. } in &mut self.layers {
            let own = facts.name.clone();
            let same = |name: &String| {
                recipe.is_some() && recipes.iter().any(|(other, of)| other == name && of == recipe)
            };
            facts.group.retain(|name| *name == own || same(name));
        }
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
        let total = self.flops();
        if total == 0.0 { 0.0 } else { self.fp8().fold(0.0, |sum, layer| sum + layer.fp8_flops()) / total }
    }

    /// FLOPs of all layers, forward and backward, in units of two a token.
    fn flops(&self) -> f64 {
        self.layers.iter().map(PlannedLayer::flops).sum()
    }

    /// A table for the terminal: which layers run in FP8, and why not the others.
    pub fn table(&self) -> String {
        table::text(self)
    }

    /// Every layer with its decision, as a decoder takes them.
    pub fn decided(&self) -> Vec<(LayerFacts, Decision)> {
        self.layers.iter().map(|layer| (layer.facts.clone(), layer.decision.clone())).collect()
    }

    /// Name and decision of every layer.
    pub fn decisions(&self) -> Vec<(String, Decision)> {
        self.layers.iter().map(|layer| (layer.facts.name.clone(), layer.decision.clone())).collect()
    }
}

impl PlannedLayer {
    /// FLOPs of its three GEMMs, in units of two a token.
    fn flops(&self) -> f64 {
        3.0 * self.facts.in_features as f64 * self.facts.out_features as f64
    }

    /// Those of the GEMMs that run in FP8.
    fn fp8_flops(&self) -> f64 {
        let gemms: f64 = self.decision.fp8_gemms.iter().map(|&n| f64::from(n)).sum();
        self.flops() * gemms / 3.0
    }
}

/// Why `min_gain` keeps a layer from `recipe`, if it does; and what it would gain.
fn too_small(layer: &LayerFacts, rule: &FilterRule, recipe: &str) -> (Option<String>, Option<f64>) {
    let (n, k) = (layer.out_features, layer.in_features);
    let unknown = || Some(format!("`min_gain` has no formula for recipe `{recipe}`"));
    match rule.min_gain {
        MinGain::Off => (None, None),
        MinGain::Torchao => match gain::torchao_refuses(recipe, n, k) {
            Ok(refusal) => (
                refusal.map(|rule| format!("`min_gain`, torchao: N = {n}, K = {k} is too small ({rule})")),
                None,
            ),
            Err(gain::Unpublished) => (unknown(), None),
        },
        MinGain::AtLeast(wanted) => {
            let m = layer.tokens.unwrap_or(gain::ASSUMED_TOKENS);
            match gain::predicted(recipe, m, n, k) {
                Ok(gain) if gain >= wanted => (None, Some(gain)),
                Ok(gain) => {
                    let card = gain::CARD;
                    let reason = format!(
                        "`min_gain = {wanted}`: {} predicted (N = {n}, K = {k}, M = {m}, {card})",
                        gain::shown(gain)
                    );
                    (Some(reason), Some(gain))
                }
                Err(gain::Unpublished) => (unknown(), None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
