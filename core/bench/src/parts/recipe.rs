//! A recipe and its layers that delegate to others, and note how long these took.

use std::sync::Arc;

use fp8flow_sdk::{
    Backward, Counters, Decision, Event, Forward, InputFormat, LayerFacts, Linear, Memory, Recipe, Result,
    StateDict,
};
use serde_json::Value;

use crate::parts::ledger::{Ledger, Part};
use crate::parts::work;

/// A recipe, timed.
pub(crate) struct TimedRecipe {
    recipe: Box<dyn Recipe>,
    ledger: Arc<Ledger>,
}

impl TimedRecipe {
    pub(crate) fn new(recipe: Box<dyn Recipe>, ledger: Arc<Ledger>) -> Self {
        Self { recipe, ledger }
    }
}

impl Recipe for TimedRecipe {
    fn describe(&self) -> Value {
        self.recipe.describe()
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.recipe.decide(layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let linear = self.recipe.linear(layer)?;
        Ok(Box::new(TimedLinear { linear, ledger: Arc::clone(&self.ledger), seen: None }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.ledger.weights_changed();
        }
        self.ledger.time(Part::Recipe, None, || self.recipe.on(event))
    }

    fn state(&self) -> Result<StateDict> {
        self.recipe.state()
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        self.recipe.restore(state)
    }

    fn healthy(&self) -> Result<()> {
        self.recipe.healthy()
    }
}

/// A layer, timed.
struct TimedLinear {
    linear: Box<dyn Linear>,
    ledger: Arc<Ledger>,
    /// The generation of weights that it has met last.
    seen: Option<u64>,
}

impl Linear for TimedLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.linear.memory(tokens)
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.linear.input_formats()
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let generation = self.ledger.generation();
        let fresh = self.seen.replace(generation) != Some(generation);
        let tokens = call.x.tensor.shape().first().map_or(0, |&rows| rows as usize);
        let work = work::fp8_forward(&call, fresh.then(|| self.linear.memory(tokens).own));
        self.ledger.time(Part::LinearFp8Forward, Some(work), || self.linear.forward(call))
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let work = work::fp8_backward(&call);
        self.ledger.time(Part::LinearFp8Backward, Some(work), || self.linear.backward(call))
    }

    fn counters(&self) -> Counters {
        self.linear.counters()
    }
}

#[cfg(test)]
mod tests;
