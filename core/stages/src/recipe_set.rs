//! Several recipes in one run, as one: each layer goes to its own, events go to all.
//!
//! State and description keep the members apart by a label, `0.rowwise/…`. Layers of different members never share a
//! group (the layer plan sees to that), so the members know nothing of each other.

use std::collections::BTreeMap;

use fp8flow_sdk::{Decision, Error, Event, LayerFacts, Linear, Recipe, Result, StateDict};
use serde_json::{Value, json};

/// Several recipes as one.
pub(crate) struct RecipeSet {
    /// Each with its label.
    members: Vec<(String, Box<dyn Recipe>)>,
    /// The number of the member for each layer.
    of: BTreeMap<String, usize>,
}

impl RecipeSet {
    /// `recipes` with their names; the layer `name` runs under number `of[name]`. One recipe stays as it is, its state
    /// and description too.
    pub(crate) fn assemble(
        mut recipes: Vec<(String, Box<dyn Recipe>)>,
        of: BTreeMap<String, usize>,
    ) -> Option<Box<dyn Recipe>> {
        if recipes.len() <= 1 {
            return recipes.pop().map(|(_, recipe)| recipe);
        }
        let label = |(i, (name, recipe)): (usize, (String, _))| (format!("{i}.{name}"), recipe);
        Some(Box::new(Self { members: recipes.into_iter().enumerate().map(label).collect(), of }))
    }

    fn number(&self, layer: &LayerFacts) -> Result<usize> {
        self.of
            .get(&layer.name)
            .copied()
            .filter(|&number| number < self.members.len())
            .ok_or_else(|| Error::protocol(format!("layer `{}` was planned under no recipe", layer.name)))
    }
}

impl Recipe for RecipeSet {
    fn describe(&self) -> Value {
        let members: serde_json::Map<String, Value> =
            self.members.iter().map(|(label, recipe)| (label.clone(), recipe.describe())).collect();
        json!({ "recipes": members, "layers": self.of })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        match self.number(layer) {
            Ok(number) => self.members[number].1.decide(layer),
            Err(error) => {
                Decision { precision: fp8flow_sdk::Precision::High, reason: error.message, fp8_gemms: [0; 3] }
            }
        }
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let number = self.number(layer)?;
        self.members[number].1.linear(layer)
    }

    fn on(&mut self, event: Event) -> Result<()> {
        self.members.iter_mut().try_for_each(|(_, recipe)| recipe.on(event))
    }

    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::default();
        for (label, recipe) in &self.members {
            state.0.extend(
                recipe.state()?.0.into_iter().map(|(key, tensor)| (format!("{label}/{key}"), tensor)),
            );
        }
        Ok(state)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let mut parts = vec![StateDict::default(); self.members.len()];
        for (key, tensor) in &state.0 {
            let owner = self.members.iter().enumerate().find_map(|(i, (label, _))| {
                key.strip_prefix(label.as_str())?.strip_prefix('/').map(|own| (i, own))
            });
            let Some((i, own)) = owner else {
                let labels: Vec<&str> = self.members.iter().map(|(label, _)| label.as_str()).collect();
                return Err(Error::invalid(format!(
                    "state `{key}` is of no recipe of this run, which has {}",
                    labels.join(", ")
                )));
            };
            parts[i].0.insert(own.to_owned(), tensor.clone());
        }
        self.members.iter_mut().zip(&parts).try_for_each(|((_, recipe), part)| recipe.restore(part))
    }

    fn healthy(&self) -> Result<()> {
        self.members.iter().try_for_each(|(_, recipe)| recipe.healthy())
    }
}
