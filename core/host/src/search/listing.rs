//! All plugins, also those that no name leads to.

use std::path::PathBuf;

use super::Search;
use super::scan::{Scan, holds_name, scan};
use crate::Found;
use crate::place::{Step, Trace};

/// All plugins that were found, and what was passed over.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The plugins, in the order of the places, then by file name.
    pub plugins: Vec<Listed>,
    /// Files that look like plugins and cannot be used, and why not.
    pub damaged: Vec<(PathBuf, String)>,
    /// What was seen in each place.
    pub trace: Trace,
}

/// A plugin in a [`Listing`].
#[derive(Clone, Debug)]
pub struct Listed {
    /// The plugin.
    pub found: Found,
    /// The plugin of the same name in an earlier place, which is the one that the name stands for; or a damaged package, which
    /// keeps its name.
    pub shadowed_by: Option<PathBuf>,
    /// Another plugin of the same name in the same place: the name cannot be used.
    pub conflicts_with: Option<PathBuf>,
}

impl Search {
    /// Every plugin in every place. Opens no library.
    pub fn list(&self) -> Listing {
        let mut listing = Listing { plugins: Vec::new(), damaged: Vec::new(), trace: Trace::default() };
        for place in &self.places {
            let Scan { plugins: candidates, mut notes, refused } = scan(place);
            listing.damaged.extend(refused.into_iter().map(|(path, refusal)| (path, refusal.to_string())));
            let earlier = listing.plugins.len();
            for candidate in candidates {
                let path = candidate.path.clone();
                match candidate.digest(place, &self.settings) {
                    Ok(found) => add(&mut listing.plugins, earlier, found, &mut notes),
                    Err(refusal) => {
                        notes.push(format!("{}: {refusal}", path.display()));
                        listing.damaged.push((path, refusal.to_string()));
                    }
                }
            }
            // As in `find`, a damaged package does not give its name away.
            let damaged: Vec<PathBuf> = listing.damaged.iter().map(|(path, _)| path.clone()).collect();
            for plugin in &mut listing.plugins[earlier..] {
                let holds = |path: &&PathBuf| holds_name(path, plugin.found.name());
                plugin.shadowed_by =
                    plugin.shadowed_by.take().or_else(|| damaged.iter().find(holds).cloned());
            }
            listing.trace.0.push(Step { place: place.clone(), notes });
        }
        listing
    }
}

/// Adds a plugin to those found in `earlier` places and in the same one.
fn add(plugins: &mut Vec<Listed>, earlier: usize, found: Found, notes: &mut Vec<String>) {
    let same_name = |listed: &&Listed| listed.found.name() == found.name();
    if let Some(same) = plugins.iter().find(|listed| listed.found.digest == found.digest) {
        notes.push(format!("{}: the same as {}", found.path.display(), same.found.path.display()));
        return;
    }
    let path = |listed: &Listed| listed.found.path.clone();
    let shadowed_by = plugins[..earlier].iter().find(same_name).map(path);
    let conflicts_with = plugins[earlier..].iter().find(same_name).map(path);
    if let Some(first) = plugins[earlier..].iter_mut().find(|listed| listed.found.name() == found.name()) {
        first.conflicts_with.get_or_insert(found.path.clone());
    }
    plugins.push(Listed { found, shadowed_by, conflicts_with });
}
