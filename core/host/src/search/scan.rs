//! What lies in a place: libraries and packages, and why the rest is none.

use std::path::{Path, PathBuf};

use crate::HostError;
use crate::found::{Candidate, Refusal};
use crate::package::{Package, PackageError, SIDECAR};
use crate::place::Place;
use crate::similar::quoted;

/// What is in a place.
#[derive(Default)]
pub(super) struct Scan {
    /// The plugins, by file name.
    pub(super) plugins: Vec<Candidate>,
    /// Why other files are none.
    pub(super) notes: Vec<String>,
    /// Those of them that are not simply something else: libraries and packages.
    pub(super) refused: Vec<(PathBuf, Refusal)>,
}

pub(super) fn scan(place: &Place) -> Scan {
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
pub(super) type Entry = (PathBuf, Result<PathBuf, Refusal>);

/// The file itself; or the shared libraries in the folder and the packages directly below it.
pub(super) fn entries(path: &Path) -> std::io::Result<Vec<Entry>> {
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
pub(super) fn library_in(folder: &Path) -> Result<PathBuf, HostError> {
    let package = Package::open(folder)?;
    let none = || PackageError::NoSidecar { path: folder.to_owned() };
    Ok(package.ok_or_else(none)?.library())
}

/// Whether at `path`, the folder of a package or its library, is the package `name`: it is called as its folder is, or as
/// its library says.
pub(super) fn holds_name(path: &Path, name: &str) -> bool {
    let is_folder = path.is_dir();
    let folder = if is_folder { Some(path) } else { path.parent() };
    let Some(folder) = folder.filter(|folder| folder.join(SIDECAR).exists()) else { return false };
    let manifest = || crate::elf::read_manifest(std::fs::File::open(path)?);
    folder.file_name() == Some(name.as_ref())
        || (!is_folder && manifest().is_ok_and(|manifest| manifest.name == name))
}
