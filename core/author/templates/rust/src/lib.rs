//! A backend for fp8flow: the plugin `my-backend` with one recipe.
//!
//! | file | holds |
//! | --- | --- |
//! | `table.rs` | the recipe as data: its name, its option, which operand of which GEMM is cast how. Begin here |
//! | `recipe.rs` | the recipe at work in one run: decides per layer, describes itself, makes the layers |
//! | `lib.rs` | the library as a whole |
//!
//! Casts, GEMMs, memory and the cache of weights come from `fp8flow_sdk::scaled`, which carries out any such table. Where
//! a table is not enough (scales from earlier steps, kernels of your own), implement `fp8flow_sdk::Linear` yourself.

mod recipe;
mod table;

use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::Primitives;
use fp8flow_sdk::{Backend, Error, Host, Kernels, Options, Recipe, RecipeInfo, Result};

/// The backend. It lives as long as the process and may serve two runs at once: it holds nothing of either.
#[derive(Debug)]
pub struct Plugin;

impl Backend for Plugin {
    fn start(_host: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        vec![table::info()]
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        if name != table::NAME {
            let error = Error::invalid(format!("there is no recipe `{name}`"));
            return Err(error.with_help(format!("there is `{}`", table::NAME)));
        }
        // The engine has checked the options against their schema and filled in the defaults.
        let settings = table::Settings::read(options)?;
        Ok(Box::new(recipe::Configured::new(host, settings)))
    }

    /// Cast and GEMM by themselves, for `fp8flow bench` and the conformance suite.
    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        let rules = [ScaleRule::Linear, ScaleRule::PowerOfTwo];
        Some(Box::new(Primitives::new(host.clone(), rules)))
    }
}

// Name, version and description come from Cargo.toml. The names of the recipes stand in the library's manifest, where
// they are read without running any of its code.
fp8flow_sdk::export_backend!(Plugin, recipes = [table::NAME]);
