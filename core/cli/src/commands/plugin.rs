//! `fp8flow plugin`: what is installed, and what it can do.

use fp8flow_host::{Found, Listed, Search, Shown};
use fp8flow_host::{Listing, Step};
use serde_json::{Value, json};

use crate::args::{Common, PluginCommand};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn plugin(common: &Common, command: &PluginCommand, screen: &Screen) -> Result<(), Failure> {
    let search = Search::new(&common.plugin_path, &[]);
    match command {
        PluginCommand::List => list(&search.list(), screen),
        PluginCommand::Show { name } => show(common, &search.find(name)?, screen)?,
    }
    Ok(())
}

fn list(listing: &Listing, screen: &Screen) {
    if screen.json() {
        let plugins: Vec<Value> = listing.plugins.iter().map(listed).collect();
        let step = |step: &Step| json!({ "origin": step.place.origin.to_string(), "path": step.place.path, "notes": step.notes });
        let places: Vec<Value> = listing.trace.0.iter().map(step).collect();
        return screen.print(json!({ "plugins": plugins, "places": places }).to_string());
    }
    for plugin in &listing.plugins {
        let manifest = &plugin.found.manifest;
        screen.print(format!(
            "{} {}  {}\n    recipes: {}\n    {}{}",
            manifest.name,
            manifest.version,
            manifest.about,
            manifest.recipes.join(", "),
            plugin.found.path.display(),
            objection(plugin).map_or(String::new(), |objection| format!("\n    not usable: {objection}"))
        ));
    }
    if listing.plugins.is_empty() {
        screen.print("no plugin was found");
    }
    screen.print(format!("\nplaces searched, in this order:\n{}", listing.trace));
}

/// Why a name does not lead to this plugin, or the plugin cannot be loaded.
fn objection(plugin: &Listed) -> Option<String> {
    if let Some(first) = &plugin.shadowed_by {
        return Some(format!("{} comes first", first.display()));
    }
    if let Some(twin) = &plugin.conflicts_with {
        return Some(format!("{} has the same name", twin.display()));
    }
    plugin.found.compatible().err().map(|mismatch| mismatch.to_string())
}

fn listed(plugin: &Listed) -> Value {
    let mut object = facts(&plugin.found);
    object["usable"] = objection(plugin).is_none().into();
    object["objection"] = objection(plugin).into();
    object
}

fn facts(found: &Found) -> Value {
    json!({
        "name": found.manifest.name,
        "version": found.manifest.version,
        "about": found.manifest.about,
        "sdk": found.manifest.sdk,
        "path": found.path,
        "origin": found.place.origin.to_string(),
        "digest": found.digest.to_string(),
        "recipes": found.manifest.recipes,
    })
}

/// Recipes are asked of the plugin itself, unless that was done before.
fn show(common: &Common, found: &Found, screen: &Screen) -> Result<(), Failure> {
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
