//! A small honest backend with delayed scaling by tensor, and ways to spoil it: what the conformance suite is tested
//! with. [`FAULTS`] names each way and the check that must find it.
//!
//! A test that links this crate takes [`Toy`] with the fault of its choice. The library itself has the fault that the
//! environment variable `FP8FLOW_TEST_FAULT` names, none where it is unset.

mod crimes;
mod fault;
mod linear;
mod primitives;
mod spoil;
mod toy;

use fp8flow_sdk::{Backend, Error, Host, Kernels, Options, Recipe, RecipeInfo, Result};

pub use fault::*;
pub use toy::Toy;

/// The backend of the library.
pub struct Misbehaving(Box<dyn Object>);

/// [`Backend`] without its type.
trait Object: Send + Sync {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>>;
    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>>;
}

impl<B: Backend> Object for B {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        Backend::recipe(self, host, name, options)
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        Backend::kernels(self, host)
    }
}

/// What a fault's [`Toy`] does before it is started.
struct Kind {
    start: fn(&Host) -> Result<Box<dyn Object>>,
    recipes: fn() -> Vec<RecipeInfo>,
}

impl Kind {
    fn of<const FAULT: Fault>() -> Self {
        Self { start: |host| Ok(Box::new(Toy::<FAULT>::start(host)?)), recipes: Toy::<FAULT>::recipes }
    }
}

fn told() -> Result<Kind> {
    let name = std::env::var("FP8FLOW_TEST_FAULT").unwrap_or_default();
    let name = if name.is_empty() { "none" } else { &name };
    fault::kind(name).ok_or_else(|| Error::invalid(format!("FP8FLOW_TEST_FAULT={name}: no such fault")))
}

impl Backend for Misbehaving {
    fn start(host: &Host) -> Result<Self> {
        (told()?.start)(host).map(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        told().map_or_else(|_| Vec::new(), |kind| (kind.recipes)())
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        self.0.recipe(host, name, options)
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        self.0.kernels(host)
    }
}

impl std::fmt::Debug for Misbehaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Misbehaving")
    }
}

fp8flow_sdk::export_backend!(Misbehaving, recipes = ["delayed"]);
