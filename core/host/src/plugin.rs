//! A started plugin, behind the traits that a linked backend would have.

use std::sync::Arc;

use fp8flow_sdk::abi::LoadedBackend;
use fp8flow_sdk::{Error, Host, Kernels, Manifest, Options, Recipe, RecipeInfo};

use crate::similar::{closest, quoted};
use crate::watched::Watched;
use crate::{Digest, Found, HostError};

/// A plugin that was opened and started on a host. Errors of its recipes, layers and primitives name the plugin, the
/// layer and the call.
#[derive(Debug)]
pub struct Plugin {
    found: Found,
    host: Host,
    recipes: Arc<[RecipeInfo]>,
    backend: Watched<LoadedBackend>,
}

impl Plugin {
    pub(crate) fn new(found: Found, host: Host, recipes: Arc<[RecipeInfo]>, backend: LoadedBackend) -> Self {
        let backend = Watched::new(backend, found.subject().into(), "");
        Self { found, host, recipes, backend }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.found.name()
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.found.manifest
    }

    /// Where it was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The digest of its file, for the lock.
    pub fn digest(&self) -> Digest {
        self.found.digest
    }

    /// Its recipes with their options.
    pub fn recipes(&self) -> &[RecipeInfo] {
        &self.recipes
    }

    /// The recipe called `name`, to check options against.
    pub fn recipe_info(&self, name: &str) -> Result<&RecipeInfo, HostError> {
        self.recipes.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            let known = || self.recipes.iter().map(|recipe| recipe.name.as_str());
            HostError::UnknownRecipe {
                plugin: self.name().to_owned(),
                recipe: name.to_owned(),
                similar: closest(name, known()).map(str::to_owned),
                known: quoted(known()),
            }
        })
    }

    /// A recipe for one run; `options` as [`crate::check_options`] gives them.
    pub fn recipe(&self, name: &str, options: &Options) -> Result<Box<dyn Recipe>, HostError> {
        self.recipe_info(name)?;
        Ok(self.any_recipe(&self.host, name, options)?)
    }

    /// [`Plugin::recipe`] of any name, which need not be among its own, on a host of the caller's: for those who try a plugin.
    pub fn any_recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>, Error> {
        let recipe = self.backend.call("recipe", |backend| backend.recipe(host, name, options))?;
        Ok(Box::new(Watched::new(recipe, self.backend.plugin(), "")))
    }

    /// The primitives behind the recipes, where it offers them.
    pub fn kernels(&self) -> Result<Option<Box<dyn Kernels>>, HostError> {
        let kernels = self.backend.call("kernels", |backend| backend.kernels(&self.host))?;
        let watched =
            |kernels| Box::new(Watched::new(kernels, self.backend.plugin(), "")) as Box<dyn Kernels>;
        Ok(kernels.map(watched))
    }
}
