//! A folder that appears whole or not at all: written beside its place, then moved there in one step.
//!
//! The folder aside has a name of its own (`.out.fp8flow-partial`), so that what a killed run left there is found and
//! removed by the next.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, CWD, RenameFlags, access, renameat_with};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{AtPath, ModelError};
use crate::folder::{CONFIG, read_text};

/// The list of files that marks a folder as written by us.
pub(crate) const MANIFEST: &str = "fp8flow-export.json";

/// A folder in the making. Dropped before [`StagedFolder::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct StagedFolder {
    target: PathBuf,
    aside: PathBuf,
    overwrite: bool,
}

impl StagedFolder {
    /// A new, empty folder beside `target`, after a check that `target` may be replaced.
    pub(crate) fn beside(target: &Path, overwrite: bool) -> Result<Self, ModelError> {
        let target = check_target(target, overwrite)?;
        let (parent, name) = place(&target)?;
        let aside = parent.join(format!(".{name}.fp8flow-partial"));
        fs::create_dir_all(parent).at(parent, "create")?;
        remove(&aside).at(&aside, "remove what an interrupted export left")?;
        fs::create_dir(&aside).at(&aside, "create")?;
        Ok(Self { target, aside, overwrite })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.aside
    }

    /// Moves the folder to its place; what was there before is removed.
    pub(crate) fn commit(self) -> Result<(), ModelError> {
        let (target, aside) = (&self.target, &self.aside);
        sync_folder(aside)?;
        let moved = if occupied(target, self.overwrite)? {
            exchange(aside, target)
        } else {
            fs::rename(aside, target)
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(mount_point(target)),
            moved => moved.at(target, "put the finished export in place")?,
        }
        if let Some(parent) = target.parent() {
            sync_folder(parent)?;
        }
        // Dropping removes the folder that was there before.
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.aside) {
            tracing::warn!("{}: cannot be removed: {error}", self.aside.display());
        }
    }
}

/// The place that an export into `folder` would take, links followed; an error if it could not be written there. Creates
/// nothing.
///
/// With `overwrite`, a model folder from elsewhere may be there.
pub fn check_target(folder: &Path, overwrite: bool) -> Result<PathBuf, ModelError> {
    let target = resolve(folder)?;
    let (parent, _) = place(&target)?;
    occupied(&target, overwrite)?;
    let device = |folder: &Path| folder.metadata().map(|metadata| metadata.dev());
    if let (Ok(outside), Ok(inside)) = (device(parent), device(&target))
        && outside != inside
    {
        return Err(mount_point(&target));
    }
    let above = parent.ancestors().find(|folder| folder.exists()).unwrap_or(parent);
    if !above.is_dir() {
        return Err(refusal(&target, format!("{} is no folder: choose another place", above.display())));
    }
    if let Err(error) = access(above, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        let problem = format!("{} cannot be written to ({error}): choose another place", above.display());
        return Err(refusal(&target, problem));
    }
    Ok(target)
}

/// `folder` as an absolute path without links: one to a folder stays, and what it leads to is replaced.
fn resolve(folder: &Path) -> Result<PathBuf, ModelError> {
    let whole = std::path::absolute(folder).at(folder, "resolve")?;
    let above = whole.ancestors().find(|folder| folder.exists() || folder.is_symlink()).unwrap_or(&whole);
    if !above.exists() {
        let problem = format!("{} is a link to nothing: remove it, or choose another place", above.display());
        return Err(refusal(folder, problem));
    }
    let mut resolved = above.canonicalize().at(above, "resolve")?;
    // What is not there yet has no links.
    for part in whole.strip_prefix(above).unwrap_or(Path::new("")).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    Ok(resolved)
}

/// The folder around `target`, and its name in it.
fn place(target: &Path) -> Result<(&Path, &str), ModelError> {
    match (target.parent(), target.file_name().and_then(OsStr::to_str)) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(refusal(target, "cannot be exported to: give a folder with a name".into())),
    }
}

/// Whether something that may be replaced is at `target`; something that may not is an error.
fn occupied(target: &Path, overwrite: bool) -> Result<bool, ModelError> {
    if !target.exists() {
        return Ok(false);
    }
    if !target.is_dir() {
        return Err(refusal(target, "is no folder: choose another place for the export".into()));
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(target).at(target, "read")? {
        let entry = entry.at(target, "read")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().at(target, "read")?.is_dir() {
            let problem = format!("holds the folder `{name}`, so it is not replaced: choose another folder");
            return Err(refusal(target, problem));
        }
        names.insert(name);
    }
    if names.is_empty() {
        return Ok(false);
    }
    let is_model = names.contains(CONFIG);
    let ours = earlier_export(target);
    match names.into_iter().find(|name| !ours.contains(name)) {
        Some(name) if !(overwrite && is_model) => {
            let advice = if is_model { "allow overwriting or choose" } else { "choose" };
            let problem = format!("holds `{name}`, which no earlier export wrote: {advice} another folder");
            Err(refusal(target, problem))
        }
        _ => Ok(true),
    }
}

/// The files that an earlier export wrote into `folder`, by its manifest; none if there is no sound one.
fn earlier_export(folder: &Path) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Manifest {
        files: Map<String, Value>,
    }

    let text = read_text(&folder.join(MANIFEST)).unwrap_or_default();
    serde_json::from_str::<Manifest>(&text)
        .map(|manifest| {
            manifest.files.into_iter().map(|(name, _)| name).chain([MANIFEST.to_owned()]).collect()
        })
        .unwrap_or_default()
}

fn mount_point(target: &Path) -> ModelError {
    refusal(target, "is a mount point, which cannot be replaced: export to a folder inside it".into())
}

fn refusal(target: &Path, problem: String) -> ModelError {
    ModelError::Target { path: target.to_path_buf(), problem }
}

/// Swaps two folders, so that `target` is whole at every moment.
fn exchange(aside: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, target, RenameFlags::EXCHANGE) {
        // Network file systems have no such call.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            exchange_in_steps(aside, target)
        }
        result => Ok(result?),
    }
}

/// Swaps two folders by way of a third name; interrupted, it leaves both under names that say what they are.
fn exchange_in_steps(aside: &Path, target: &Path) -> io::Result<()> {
    let previous = aside.with_extension("fp8flow-previous");
    remove(&previous)?;
    fs::rename(target, &previous)?;
    if let Err(error) = fs::rename(aside, target) {
        fs::rename(&previous, target)?;
        return Err(error);
    }
    fs::rename(&previous, aside)
}

/// Removes a folder of files, if it is there.
fn remove(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(folder)
}

/// Waits until the disk has a folder's entries.
fn sync_folder(folder: &Path) -> Result<(), ModelError> {
    fs::File::open(folder).and_then(|file| file.sync_all()).at(folder, "write")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_exchanging_swap_two_folders() {
        for swap in [exchange, exchange_in_steps] {
            let parent = tempfile::tempdir().unwrap();
            let (aside, target) = (parent.path().join(".out.fp8flow-partial"), parent.path().join("out"));
            for (folder, file) in [(&aside, "new"), (&target, "old")] {
                fs::create_dir(folder).unwrap();
                fs::write(folder.join(file), "").unwrap();
            }
            swap(&aside, &target).unwrap();
            assert!(target.join("new").exists() && aside.join("old").exists());
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
        }
    }
}
