//! All that is known of a plugin, for people.

use std::fmt;

use fp8flow_sdk::RecipeInfo;
use fp8flow_sdk::manifest::SDK_VERSION;

use crate::Found;

/// A plugin with its recipes, as `fp8flow plugin show` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The plugin.
    pub found: &'a Found,
    /// Its recipes, where they are known.
    pub recipes: Option<&'a [RecipeInfo]>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { path, place, manifest, digest, package, .. } = self.found;
        writeln!(f, "{} {}", manifest.name, manifest.version)?;
        if !manifest.about.is_empty() {
            writeln!(f, "{}", manifest.about)?;
        }
        writeln!(f)?;
        writeln!(f, "  file      {} ({})", path.display(), place.origin)?;
        writeln!(f, "  digest    blake3 {digest}")?;
        match package {
            Some(package) => writeln!(
                f,
                "  sidecar   {}, which holds the library to that digest",
                package.path().display()
            )?,
            None => writeln!(f, "  sidecar   none")?,
        }
        let fits = self
            .found
            .compatible()
            .map_or_else(|mismatch| format!("unusable: {mismatch}"), |()| "fits".into());
        writeln!(f, "  SDK       {} (this fp8flow speaks {SDK_VERSION}: {fits})", manifest.sdk)?;
        writeln!(f, "  target    {}, panic = {}", manifest.target, manifest.panic)?;
        writeln!(f, "  devices   {}", manifest.devices.join(", "))?;
        if !manifest.license.is_empty() {
            writeln!(f, "  licence   {}", manifest.license)?;
        }
        if let Some(homepage) = self.found.homepage() {
            writeln!(f, "  homepage  {homepage}")?;
        }
        let Some(recipes) = self.recipes else {
            return writeln!(f, "  recipes   {}", manifest.recipes.join(", "));
        };
        for RecipeInfo { name, about, options } in recipes {
            writeln!(f, "\nrecipe {name}\n  {about}")?;
            for option in options {
                writeln!(f, "  {}: {}; default {}", option.name, option.kind, option.default)?;
                writeln!(f, "      {}", option.about)?;
            }
        }
        Ok(())
    }
}
