//! The recipes that a run may use, and which of them each layer is offered to.

use fp8flow_sdk::{Options, Recipe};
use serde::{Deserialize, Serialize};

use crate::glob::Glob;

/// A recipe of the backend with all its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeChoice {
    /// Its name.
    pub recipe: String,
    /// Every option.
    pub options: Options,
}

/// The recipes that a run may use, and which of them each layer is offered to.
pub struct Menu {
    choices: Vec<RecipeChoice>,
    recipes: Vec<Box<dyn Recipe>>,
    /// Patterns, and the number of the recipe for the layers they stand for; the last that fits counts.
    assigned: Vec<(Vec<Glob>, usize)>,
}

impl Menu {
    /// All layers are offered to `recipe`.
    pub fn new(choice: RecipeChoice, recipe: Box<dyn Recipe>) -> Self {
        Self { choices: vec![choice], recipes: vec![recipe], assigned: Vec::new() }
    }

    /// Layers of these names are offered to `choice` instead; `make` configures it where it is not there yet.
    pub fn assign<E>(
        &mut self,
        layers: Vec<Glob>,
        choice: RecipeChoice,
        make: impl FnOnce(&RecipeChoice) -> Result<Box<dyn Recipe>, E>,
    ) -> Result<(), E> {
        let known = self.choices.iter().position(|there| *there == choice);
        let number = known.unwrap_or(self.choices.len());
        if known.is_none() {
            self.recipes.push(make(&choice)?);
            self.choices.push(choice);
        }
        self.assigned.push((layers, number));
        Ok(())
    }

    /// The recipes' names and options; the first is the one for layers that nobody assigned.
    pub fn choices(&self) -> &[RecipeChoice] {
        &self.choices
    }

    /// The number of the recipe that the layer `name` is offered to.
    pub fn number_of(&self, name: &str) -> usize {
        let fits = |(globs, _): &&(Vec<Glob>, usize)| globs.iter().any(|glob| glob.matches(name));
        self.assigned.iter().rev().find(fits).map_or(0, |(_, number)| *number)
    }

    /// A recipe by its number.
    pub(super) fn recipe(&self, number: usize) -> &dyn Recipe {
        &*self.recipes[number]
    }

    /// All of them.
    pub(crate) fn recipes(&self) -> impl Iterator<Item = &dyn Recipe> {
        self.recipes.iter().map(|recipe| &**recipe)
    }
}
