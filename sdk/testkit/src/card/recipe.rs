//! A recipe whose layers are made for a card.

use std::sync::{Arc, Mutex};

use fp8flow_sdk::{Decision, Event, LayerFacts, Linear, Recipe, Result, StateDict};

use super::Desk;
use super::linear::CardLinear;
use super::mirror::Mirror;

/// A recipe on a card, with the memory that the calls of its layers are mirrored in.
pub(super) struct CardRecipe {
    pub(super) recipe: Box<dyn Recipe>,
    pub(super) desk: Desk,
    pub(super) mirror: Arc<Mutex<Mirror>>,
}

impl CardRecipe {
    fn there(&self, layer: &LayerFacts) -> LayerFacts {
        LayerFacts { device: Some(self.desk.device()), ..layer.clone() }
    }
}

impl Recipe for CardRecipe {
    fn describe(&self) -> serde_json::Value {
        self.recipe.describe()
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.recipe.decide(&self.there(layer))
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let layer = self.there(layer);
        let linear = self.recipe.linear(&layer)?;
        self.desk.settle("Recipe::linear");
        Ok(Box::new(CardLinear { linear, desk: self.desk.clone(), mirror: self.mirror.clone() }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        let result = self.recipe.on(event);
        self.desk.settle("Recipe::on");
        result
    }

    fn state(&self) -> Result<StateDict> {
        let result = self.recipe.state();
        self.desk.settle("Recipe::state");
        result
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let result = self.recipe.restore(state);
        self.desk.settle("Recipe::restore");
        result
    }

    fn healthy(&self) -> Result<()> {
        self.recipe.healthy()
    }
}
