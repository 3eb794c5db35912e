//! The configured places, in their order, and what is found in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::found::{Candidate, Refusal, Settings};
use crate::package::{Package, PackageError, SIDECAR};
use crate::place::{Origin, Place, Step, Trace};
use crate::probe::Probe;
use crate::similar::{closest, quoted};
use crate::{Found, HostError, seen};

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
    /// Those of them that are not simply something else: libraries and packages.
    refused: Vec<(PathBuf, Refusal)>,
}

fn scan(place: &Place) -> Scan {
    let note = |note: String| Scan { notes: vec![note], ..Scan::default() };
    let entries = match entries(&place.path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return note("does not exist".into()),
        Err(error) => return note(format!("cannot be read: {error}")),
    };
    let mut found = Scan::default();
    let mut others = 0;
    for (path, file) in entries {
        match file.and_then(|file| Candidate::look(&file)) {
            Ok(plugin) => found.plugins.push(plugin),
            // A folder of executables is full of libraries that nobody takes for plugins.
            Err(refusal) if refusal.is_something_else() && path != place.path => others += 1,
            Err(refusal) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).display();
                let whole =
                    if path == place.path { refusal.to_string() } else { format!("{name}: {refusal}") };
                found.notes.push(whole);
                found.refused.push((path, refusal));
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

/// A library, or a package with its library.
type Entry = (PathBuf, Result<PathBuf, Refusal>);

/// The file itself; or the shared libraries in the folder and the packages directly below it.
fn entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![(path.to_owned(), Ok(path.to_owned()))]);
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            entries.push((path.clone(), Ok(path)));
        } else if is_folder_of_its_own(&entry) {
            match Package::open(&path) {
                Ok(None) => {}
                Ok(Some(package)) => entries.push((path, Ok(package.library()))),
                Err(error) => entries.push((path, Err(error.into()))),
            }
        }
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

/// No link, which leads where nobody has asked for plugins, and not hidden: what is being installed is called so.
fn is_folder_of_its_own(entry: &std::fs::DirEntry) -> bool {
    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// The library of the package in `folder`.
fn library_in(folder: &Path) -> Result<PathBuf, HostError> {
    let package = Package::open(folder)?;
    let none = || PackageError::NoSidecar { path: folder.to_owned() };
    Ok(package.ok_or_else(none)?.library())
}

/// Whether at `path`, the folder of a package or its library, is the package `name`: it is called as its folder is, or as
/// its library says.
fn holds_name(path: &Path, name: &str) -> bool {
    let is_folder = path.is_dir();
    let folder = if is_folder { Some(path) } else { path.parent() };
    let Some(folder) = folder.filter(|folder| folder.join(SIDECAR).exists()) else { return false };
    let manifest = || crate::elf::read_manifest(std::fs::File::open(path)?);
    folder.file_name() == Some(name.as_ref())
        || (!is_folder && manifest().is_ok_and(|manifest| manifest.name == name))
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
