//! `fp8flow plugin show`: all about one plugin.

use fp8flow_host::{Found, Shown};
use serde_json::json;

use super::facts;
use crate::args::Common;
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

/// Recipes are asked of the plugin itself, unless that was done before.
pub(super) fn show(common: &Common, found: &Found, screen: &Screen) -> Result<(), Failure> {
    let recipes = match (found.compatible(), found.recipes()) {
        (Err(_), _) => None,
        (Ok(()), Some(recipes)) => Some(recipes),
        (Ok(()), None) => {
            let plugin = found.open(&Machine::to_look(common)?.engine.host)?;
            Some(plugin.recipes().to_vec())
        }
    };
    if screen.json() {
        let mut object = facts(found);
        object["recipes"] = json!(recipes);
        screen.print(object.to_string());
    } else {
        screen.print(Shown { found, recipes: recipes.as_deref() }.to_string());
    }
    Ok(())
}
