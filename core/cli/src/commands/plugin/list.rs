//! `fp8flow plugin list`: what is installed.

use fp8flow_host::{Listed, Listing, Step};
use serde_json::{Value, json};

use super::facts;
use crate::screen::Screen;

pub(super) fn list(listing: &Listing, screen: &Screen) {
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
