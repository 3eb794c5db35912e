//! From the user's folder to nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::{Package, PackageError, SIDECAR, words};
use crate::{HostError, Search};

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// Its version, where that could be told.
    pub version: Option<String>,
    /// The folder or file that is gone.
    pub path: PathBuf,
}

/// Removes the plugin `name` from the user's folder `from`, and from nowhere else; also one that is damaged.
pub fn remove(name: &str, search: &Search, from: &Path) -> Result<Removed, HostError> {
    words::name(name).map_err(PackageError::Name)?;
    if !from.exists() {
        return Err(not_installed(name, search, from).into());
    }
    let folder = Folder::open(from)?;
    let there = search.named_in(folder.path(), name).into_iter().next();
    let own = folder.path().join(name);
    let version = match (&there, Package::open(&own)) {
        (Some((_, found)), _) => Some(found.manifest.version.clone()),
        (None, Ok(Some(damaged))) => Some(damaged.sidecar.version),
        _ => None,
    };
    let path = match there {
        _ if fs::symlink_metadata(own.join(SIDECAR)).is_ok() => own,
        Some((entry, _)) => entry,
        None => return Err(not_installed(name, search, from).into()),
    };
    let aside = folder.aside()?;
    fs::rename(&path, aside.path().join("removed")).map_err(PackageError::io("remove", &path))?;
    folder.sync()?;
    aside.close().map_err(PackageError::io("remove", &path))?;
    Ok(Removed { name: name.to_owned(), version, path })
}

/// With the place where it is instead, if there is one.
fn not_installed(name: &str, search: &Search, folder: &Path) -> PackageError {
    let elsewhere = search.find(name).ok().map(|found| (found.path, found.place.origin.to_string()));
    PackageError::NotInstalled { name: name.to_owned(), folder: folder.to_owned(), elsewhere }
}
