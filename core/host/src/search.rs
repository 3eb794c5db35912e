//! The configured places, in their order, and what is found in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::elf::NotAPlugin;
use crate::found::{Candidate, Settings};
use crate::place::{Origin, Place, Step, Trace};
use crate::probe::Probe;
use crate::similar::{closest, quoted};
use crate::{Found, HostError, seen};

/// The environment variable with further places, separated by colons.
const PATH_VARIABLE: &str = "FP8FLOW_PLUGIN_PATH";

/// Where plugins are looked for. A name that occurs in several places belongs to the first of them; twice in one
/// place it is an error.
#[derive(Clone, Debug)]
pub struct Search {
    places: Vec<Place>,
    settings: Arc<Settings>,
}

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
    /// The plugin of the same name in an earlier place, which is the one that the name stands for.
    pub shadowed_by: Option<PathBuf>,
    /// Another plugin of the same name in the same place: the name cannot be used.
    pub conflicts_with: Option<PathBuf>,
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

    /// Every plugin in every place. Opens no library.
    pub fn list(&self) -> Listing {
        let mut listing = Listing { plugins: Vec::new(), damaged: Vec::new(), trace: Trace::default() };
        for place in &self.places {
            let Scan { plugins: candidates, mut notes, damaged } = scan(place);
            listing.damaged.extend(damaged);
            let earlier = listing.plugins.len();
            for candidate in candidates {
                let path = candidate.path.clone();
                match candidate.digest(place, &self.settings) {
                    Ok(found) => add(&mut listing.plugins, earlier, found, &mut notes),
                    Err(error) => notes.push(format!("{}: {error}", path.display())),
                }
            }
            listing.trace.0.push(Step { place: place.clone(), notes });
        }
        listing
    }

    /// The plugin called `wanted`; or the one at that path, if there is a `/` in it. Opens no library.
    pub fn find(&self, wanted: &str) -> Result<Found, HostError> {
        if wanted.contains('/') {
            return self.at(Path::new(wanted));
        }
        let mut trace = Trace::default();
        let mut names = Vec::new();
        for place in &self.places {
            let Scan { plugins: candidates, mut notes, .. } = scan(place);
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
                (Err(error), _) => notes.push(format!("{}: {error}", path.display())),
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

    /// The plugin in the file `path`.
    fn at(&self, path: &Path) -> Result<Found, HostError> {
        let place = Place { origin: Origin::Path, path: path.to_owned() };
        Candidate::look(path)
            .and_then(|candidate| candidate.digest(&place, &self.settings))
            .map_err(|source| HostError::NotAPlugin { path: path.to_owned(), source })
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

/// What is in a place.
#[derive(Default)]
struct Scan {
    /// The plugins, by file name.
    plugins: Vec<Candidate>,
    /// Why other files are none.
    notes: Vec<String>,
    /// Those of them that are not simply something else.
    damaged: Vec<(PathBuf, String)>,
}

fn scan(place: &Place) -> Scan {
    let note = |note: String| Scan { notes: vec![note], ..Scan::default() };
    let files = match files(&place.path) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return note("does not exist".into()),
        Err(error) => return note(format!("cannot be read: {error}")),
    };
    let mut found = Scan::default();
    let mut others = 0;
    for path in files {
        match Candidate::look(&path) {
            Ok(plugin) => found.plugins.push(plugin),
            // A folder of executables is full of libraries that nobody takes for plugins.
            Err(NotAPlugin::NoManifest) if path != place.path => others += 1,
            Err(error) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).display();
                let whole = if path == place.path { error.to_string() } else { format!("{name}: {error}") };
                found.notes.push(whole);
                found.damaged.push((path, error.to_string()));
            }
        }
    }
    let mut summary = Vec::new();
    if !found.plugins.is_empty() {
        let names = found.plugins.iter().map(|plugin| plugin.manifest.name.as_str());
        summary.push(format!("has {}", quoted(names)));
    } else if found.notes.is_empty() {
        summary.push("has no plugin".to_owned());
    }
    if others > 0 {
        summary.push(format!("{others} shared libraries in it are no plugins"));
    }
    found.notes.splice(0..0, summary);
    found
}

/// The file itself, or the shared libraries in the folder.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn user_folder() -> Option<PathBuf> {
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
