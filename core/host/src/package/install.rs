//! From a package, or a bare library, to the user's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{self, Folder};
use super::pack::{describe, fill};
use super::{PackageError, SIDECAR, words};
use crate::{Found, HostError, Search};

/// What an installation came to.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The plugin, where it is now.
    pub found: Found,
    /// Whether the very same one was there before.
    pub was_there: bool,
    /// The version that it took the place of.
    pub replaced: Option<String>,
}

/// Installs what was found into the user's folder `into`, whole or not at all: what is installed is a copy that was
/// checked as every plugin is and tried in a child process. Another one of the same name is left alone, unless `replace`.
pub fn install(found: &Found, search: &Search, into: &Path, replace: bool) -> Result<Installed, HostError> {
    let name = found.name();
    words::folder(name).and_then(|()| words::name(&found.manifest.version)).map_err(PackageError::Name)?;
    found.fits()?;
    let sidecar = describe(found, None)?;
    let folder = Folder::open(into)?;
    let target = folder.path().join(name);
    let there = search.named_in(folder.path(), name);
    if let Some((_, same)) = there.iter().find(|(_, there)| there.digest == found.digest) {
        return Ok(Installed { found: same.clone(), was_there: true, replaced: None });
    }
    let replaced = in_the_way(name, &target, &there, replace)?;
    let aside = folder.aside()?;
    let named = |error| at_home(error, aside.path(), &target, &sidecar.library.file, &found.path);
    fill(aside.path(), found, &sidecar).map_err(named)?;
    search.at(aside.path()).and_then(|copy| copy.examine()).map_err(named)?;
    if replaced.is_some() {
        folder::exchange(aside.path(), &target).map_err(PackageError::io("replace", &target))?;
    } else {
        folder::place(aside.path(), &target).map_err(PackageError::io("make this folder", &target))?;
    }
    folder.sync()?;
    // What was replaced goes away with the folder that it is in now.
    drop(aside);
    Ok(Installed { found: search.at(&target)?, was_there: false, replaced })
}

/// `error` without the folder `aside`, of which nobody has heard and which is gone when it is read: what was to be done
/// there was to be done to `target`, and what was found out about the copy is true of the library `from`.
fn at_home(error: HostError, aside: &Path, target: &Path, file: &str, from: &Path) -> HostError {
    // A child process names the copy without links.
    let copy = fs::canonicalize(aside).unwrap_or_else(|_| aside.to_owned()).join(file);
    let named = |text: &str| text.replace(&*copy.to_string_lossy(), &from.to_string_lossy());
    match error {
        HostError::Package(error) => error.moved(aside, target).into(),
        HostError::Probe { plugin, failure, .. } => {
            HostError::Probe { plugin, path: from.to_owned(), failure: Box::new(failure.said(named)) }
        }
        HostError::Objection(text) => HostError::Objection(named(&text)),
        other => other,
    }
}

/// The version of what is at `target` and goes, if anything is there; an error if it must not go. `there` are the whole
/// plugins of that name in the user's folder, each with its entry there.
fn in_the_way(
    name: &str,
    target: &Path,
    there: &[(PathBuf, Found)],
    replace: bool,
) -> Result<Option<String>, PackageError> {
    let in_the_way = |path: &Path| PackageError::InTheWay { name: name.to_owned(), path: path.to_owned() };
    // A library that was put there by hand.
    if let Some((other, _)) = there.iter().find(|(entry, _)| entry != target) {
        return Err(in_the_way(other));
    }
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_dir() && target.join(SIDECAR).exists() => {}
        _ => return Err(in_the_way(target)),
    }
    let version = there.first().map_or("(damaged)", |(_, there)| &there.manifest.version).to_owned();
    if replace {
        return Ok(Some(version));
    }
    Err(PackageError::Installed { name: name.to_owned(), path: target.to_owned(), version })
}
