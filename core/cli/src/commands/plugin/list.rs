//! `fp8flow plugin list`: what is installed.

use std::path::PathBuf;

use fp8flow_host::{Listed, Listing, Step};
use serde_json::{Value, json};

use super::facts;
use crate::screen::Screen;

pub(super) fn list(listing: &Listing, screen: &Screen) {
    if screen.json() {
        let plugins: Vec<Value> = listing.plugins.iter().map(listed).collect();
        let step = |step: &Step| json!({ "origin": step.place.origin.to_string(), "path": step.place.path, "notes": step.notes });
        let places: Vec<Value> = listing.trace.0.iter().map(step).collect();
        let damaged = |(path, why): &(PathBuf, String)| json!({ "path": path, "why": why });
        let damaged: Vec<Value> = listing.damaged.iter().map(damaged).collect();
        return screen.print(json!({ "plugins": plugins, "damaged": damaged, "places": places }).to_string());
    }
    for plugin in &listing.plugins {
        screen.print(text(plugin));
    }
    if listing.plugins.is_empty() {
        screen.print("no plugin was found");
    }
    for (path, why) in &listing.damaged {
        screen.print(format!("damaged: {}\n    {why}", path.display()));
    }
    screen.print(format!("\nplaces searched, in this order:\n{}", listing.trace));
}

fn text(plugin: &Listed) -> String {
    let Listed { found, .. } = plugin;
    let manifest = &found.manifest;
    let license = Some(manifest.license.as_str()).filter(|license| !license.is_empty());
    let facts: Vec<&str> = license.into_iter().chain(found.homepage()).collect();
    let more = if facts.is_empty() { String::new() } else { format!("\n    {}", facts.join(", ")) };
    let held = if found.package.is_some() { ", held by its sidecar" } else { "" };
    let objection = objection(plugin).map(|objection| format!("\n    not usable: {objection}"));
    format!(
        "{} {}  {}\n    recipes: {}{more}\n    blake3 {}{held}\n    {}{}",
        manifest.name,
        manifest.version,
        manifest.about,
        manifest.recipes.join(", "),
        found.digest.short(),
        found.path.display(),
        objection.unwrap_or_default()
    )
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
