//! The configured places, in their order, and the plugin in them that is meant.

mod listing;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::found::{Candidate, Refusal, Settings};
use crate::place::{Origin, Place, Step, Trace};
use crate::probe::Probe;
use crate::similar::{closest, quoted};
use crate::{Found, HostError, seen};

pub use listing::{Listed, Listing};
use scan::{Entry, Scan, entries, holds_name, library_in, scan};

/// The environment variable with further places, separated by colons.
const PATH_VARIABLE: &str = "FP8FLOW_PLUGIN_PATH";

/// The plugins that come with fp8flow, in the order of the reference: a workflow's `plugin = "auto"` takes the first that
/// can be used.
pub const SHIPPED: [&str; 2] = ["torchao-rowwise", "transformer-engine-hybrid"];

/// Where plugins are looked for. A name that occurs in several places belongs to the first of them; twice in one
/// place it is an error.
#[derive(Clone, Debug)]
pub struct Search {
    places: Vec<Place>,
    settings: Arc<Settings>,
}

impl Search {
    /// The usual places: those of the command line, of `FP8FLOW_PLUGIN_PATH` and of the workflow (files or folders,
    /// relative ones to the current folder), the user's folder, and the folder of the executable.
    pub fn new(command_line: &[PathBuf], workflow: &[PathBuf]) -> Self {
        let mut places = Vec::new();
        let mut add = |origin, paths: &mut dyn Iterator<Item = PathBuf>| {
            places.extend(paths.map(|path| Place { origin, path }));
        };
        let variable = std::env::var_os(PATH_VARIABLE).unwrap_or_default();
        let variable = std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty());
        add(Origin::CommandLine, &mut command_line.iter().cloned());
        add(Origin::Environment, &mut variable.into_iter());
        add(Origin::Workflow, &mut workflow.iter().cloned());
        add(Origin::User, &mut user_folder().into_iter());
        add(Origin::Executable, &mut executable_folders().into_iter());
        Self::in_places(places)
    }

    /// These places, in this order, and no others.
    pub fn in_places(places: Vec<Place>) -> Self {
        Self { places, settings: Arc::new(Settings { cache: seen::folder(), probe: None }) }
    }

    /// Remembers in `folder` what was seen of plugins, instead of in the user's cache.
    #[must_use]
    pub fn with_cache(self, folder: PathBuf) -> Self {
        let settings = Settings { cache: Some(folder), ..(*self.settings).clone() };
        Self { settings: Arc::new(settings), ..self }
    }

    /// Opens plugins that were never seen with `probe` first, instead of with this executable (which must have called
    /// [`crate::probe::run_if_child`], else there is no probe).
    #[must_use]
    pub fn with_probe(self, probe: Probe) -> Self {
        let settings = Settings { probe: Some(probe), ..(*self.settings).clone() };
        Self { settings: Arc::new(settings), ..self }
    }

    /// The plugin called `wanted`; or the library or package at that path, if there is a `/` in it. Opens no library.
    pub fn find(&self, wanted: &str) -> Result<Found, HostError> {
        if wanted.contains('/') {
            return self.at(Path::new(wanted));
        }
        let mut trace = Trace::default();
        let mut names = Vec::new();
        for place in &self.places {
            let Scan { plugins: candidates, mut notes, refused } = scan(place);
            // A package is called as its folder is: a damaged one must not give its name away to another place.
            if let Some((path, refusal)) = refused.into_iter().find(|(path, _)| holds_name(path, wanted)) {
                return Err(refusal.of(path));
            }
            names.extend(candidates.iter().map(|candidate| candidate.manifest.name.clone()));
            let named = candidates.into_iter().filter(|candidate| candidate.manifest.name == wanted);
            if let Some(found) = self.only(place, named, &mut notes)? {
                return Ok(found);
            }
            trace.0.push(Step { place: place.clone(), notes });
        }
        let similar = closest(wanted, names.iter().map(String::as_str)).map(str::to_owned);
        Err(HostError::NotFound { name: wanted.to_owned(), similar, trace })
    }

    /// The plugin to take where only a recipe is named: in the first place with plugins that have it and fit this
    /// fp8flow, the only one. Opens no library.
    pub fn find_recipe(&self, recipe: &str) -> Result<Found, HostError> {
        let mut trace = Trace::default();
        let mut names: Vec<String> = Vec::new();
        let mut recipes = Vec::new();
        for place in &self.places {
            let Scan { plugins: mut candidates, mut notes, .. } = scan(place);
            // A name stands for the plugin in the first place that has it.
            candidates.retain(|candidate| !names.contains(&candidate.manifest.name));
            names.extend(candidates.iter().map(|candidate| candidate.manifest.name.clone()));
            recipes.extend(candidates.iter().flat_map(|candidate| candidate.manifest.recipes.clone()));
            candidates.retain(|candidate| candidate.manifest.recipes.iter().any(|name| name == recipe));
            for (name, mismatch) in candidates.iter().filter_map(Candidate::mismatch) {
                notes.push(format!("`{name}` is {mismatch}"));
            }
            candidates.retain(|candidate| candidate.mismatch().is_none());
            let mut able: Vec<_> =
                candidates.iter().map(|candidate| candidate.manifest.name.as_str()).collect();
            able.sort_unstable();
            able.dedup();
            if able.len() > 1 {
                let (recipe, place, plugins) = (recipe.to_owned(), place.clone(), quoted(able));
                return Err(HostError::Undecided { recipe, place, plugins });
            }
            if let Some(found) = self.only(place, candidates, &mut notes)? {
                return Ok(found);
            }
            trace.0.push(Step { place: place.clone(), notes });
        }
        let similar = closest(recipe, recipes.iter().map(String::as_str)).map(str::to_owned);
        Err(HostError::NoSuchRecipe { recipe: recipe.to_owned(), similar, trace })
    }

    /// The one plugin among candidates of one name in one place; they may be copies of each other.
    fn only(
        &self,
        place: &Place,
        candidates: impl IntoIterator<Item = Candidate>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Found>, HostError> {
        let mut first: Option<Found> = None;
        for candidate in candidates {
            let path = candidate.path.clone();
            match (candidate.digest(place, &self.settings), &first) {
                // Nobody means the file that has taken the place of the one that was installed.
                (Err(refusal), _) if refusal.is_of_a_package() => return Err(refusal.of(path)),
                (Err(refusal), _) => notes.push(format!("{}: {refusal}", path.display())),
                (Ok(found), None) => first = Some(found),
                (Ok(next), Some(first)) if next.digest == first.digest => {}
                (Ok(next), Some(first)) => {
                    return Err(HostError::Ambiguous {
                        name: next.manifest.name,
                        place: place.clone(),
                        files: Box::new((first.path.clone(), next.path)),
                    });
                }
            }
        }
        Ok(first)
    }

    /// The plugin in the library or package at `path`. Opens no library.
    pub fn at(&self, path: &Path) -> Result<Found, HostError> {
        let place = Place { origin: Origin::Path, path: path.to_owned() };
        let file = if path.is_dir() { library_in(path)? } else { path.to_owned() };
        self.look(&file, &place).map_err(|refusal| refusal.of(file))
    }

    fn look(&self, file: &Path, place: &Place) -> Result<Found, Refusal> {
        Candidate::look(file)?.digest(place, &self.settings)
    }

    /// Every plugin in `folder`, by the path of its library or package, and what is wrong with those that are damaged.
    pub(crate) fn in_folder(&self, folder: &Path) -> Vec<(PathBuf, Result<Found, HostError>)> {
        let place = Place { origin: Origin::User, path: folder.to_owned() };
        let Ok(entries) = entries(folder) else { return Vec::new() };
        let looked = entries.into_iter().map(|(entry, file)| {
            let found = file.and_then(|file| self.look(&file, &place));
            (entry, found)
        });
        let plugins = looked.filter(|(_, found)| !found.as_ref().is_err_and(Refusal::is_something_else));
        plugins.map(|(entry, found)| (entry.clone(), found.map_err(|refusal| refusal.of(entry)))).collect()
    }

    /// The plugins called `name` in `folder`, whole ones only, each with its entry there.
    pub(crate) fn named_in(&self, folder: &Path, name: &str) -> Vec<(PathBuf, Found)> {
        let place = Place { origin: Origin::User, path: folder.to_owned() };
        let whole = |(entry, file): Entry| {
            // A digest takes the whole file: only of what is called so.
            let named = Candidate::look(&file.ok()?).ok().filter(|plugin| plugin.manifest.name == name)?;
            Some((entry, named.digest(&place, &self.settings).ok()?))
        };
        entries(folder).into_iter().flatten().filter_map(whole).collect()
    }
}

/// The user's own folder of plugins, which is searched and into which they are installed; none for a user without a home.
pub fn user_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let folders = etcetera::base_strategy::Xdg::new().ok()?;
    Some(folders.data_dir().join("fp8flow").join("plugins"))
}

/// The folder of the executable; where Cargo builds, the folder that it builds into comes first, for what lies beside
/// the executable is copied from there, and not at every build.
fn executable_folders() -> Vec<PathBuf> {
    let Some(folder) = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned())) else {
        return Vec::new();
    };
    let built = folder.join("deps");
    if folder.join(".fingerprint").is_dir() && built.is_dir() { vec![built, folder] } else { vec![folder] }
}
