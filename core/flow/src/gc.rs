//! Runs that are no longer wanted, and results that no run has any more.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::birth::{self, GONE};
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::record::{Record, Status, runs};
use crate::store::{FOLDER, Store};
use crate::{Error, atomic};

/// What is freed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// The runs, oldest first.
    pub runs: Vec<String>,
    /// Stored results.
    pub results: usize,
    /// Stored files.
    pub files: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Runs that would be removed if no process worked on them.
    pub in_use: Vec<String>,
}

/// Removes from the folder `folder` of runs all but the `keep` newest runs of each workflow, if that is given, and what
/// the store holds that no run has any more. `dry`: only says what that would be.
///
/// A run is never removed while a process works on it, nor one that would still go on.
pub fn collect(folder: &Path, keep: Option<usize>, dry: bool) -> Result<Freed, Error> {
    let mut freed = Freed::default();
    let store = Store::of(folder);
    if !folder.join(FOLDER).is_dir() && runs(folder).is_empty() {
        return Ok(freed);
    }
    if !dry {
        store.open()?;
    }
    let _hold = if folder.join(FOLDER).is_dir() { Some(store.alone()?) } else { None };
    if !dry {
        birth::sweep(folder);
    }
    let all = runs(folder);
    let unwanted = keep.map_or_else(Vec::new, |keep| unwanted(&all, keep));
    let mut links = Links::default();
    let mut locks = Vec::new();
    for (path, record) in &unwanted {
        match Lock::take(path) {
            Ok(lock) => locks.push(lock),
            Err(Error::InUse { .. }) => {
                freed.in_use.push(record.id.clone());
                continue;
            }
            Err(error) => return Err(error),
        }
        freed.runs.push(record.id.clone());
        links.add(path);
    }

    let gone = |record: &Record| freed.runs.contains(&record.id);
    let wanted: HashSet<PathBuf> = all
        .iter()
        .filter(|(_, record)| !gone(record))
        .flat_map(|(path, _)| results(path))
        .map(|manifest| store.entry(&manifest))
        .collect();
    let (mut entries, mut digests) = (Vec::new(), HashSet::new());
    for (path, manifest) in store.entries() {
        match manifest.filter(|_| wanted.contains(&path)) {
            Some(manifest) => digests.extend(manifest.outputs.into_iter().map(|output| output.blake3)),
            None => entries.push(path),
        }
    }
    let objects = store.objects().into_iter().filter(|(_, digest)| !digests.contains(digest));
    let objects: Vec<PathBuf> = objects.map(|(path, _)| path).collect();
    entries.iter().chain(&objects).for_each(|path| links.add(path));
    (freed.results, freed.files, freed.bytes) = (entries.len(), objects.len(), links.bytes());
    if dry {
        return Ok(freed);
    }

    for (path, _) in unwanted.iter().filter(|(_, record)| gone(record)) {
        let aside = path.with_file_name(format!(".{}{GONE}", name(path)));
        fs::rename(path, &aside).map_err(Error::io("remove", path))?;
        fs::remove_dir_all(&aside).map_err(Error::io("remove", path))?;
    }
    drop(locks);
    // Entries first: one that is there has its objects.
    for path in entries.iter().chain(&objects) {
        fs::remove_file(path).map_err(Error::io("remove", path))?;
        // Only where it was the last: another file in it is an error that says so.
        let _ = path.parent().map(fs::remove_dir);
    }
    let latest = folder.join("latest");
    if latest.is_symlink() && !latest.exists() {
        let _ = fs::remove_file(&latest);
    }
    atomic::sync_parent(&latest).map_err(Error::io("sync", folder))?;
    Ok(freed)
}

/// The runs that are not among the `keep` newest of their workflow and will not go on, oldest first.
fn unwanted(all: &[(PathBuf, Record)], keep: usize) -> Vec<&(PathBuf, Record)> {
    let (mut of_workflow, mut finished) = (HashMap::<_, usize>::new(), HashSet::new());
    let mut unwanted = Vec::new();
    for run in all.iter().rev() {
        let record = &run.1;
        // However its path was written.
        let workflow = (&record.workflow, Path::new(&record.file).file_name());
        let newer = of_workflow.entry(workflow).or_default();
        // What came before a finished one of the same workflow and values is history.
        let ended = record.status == Status::Finished || finished.contains(&record.identity);
        if *newer >= keep && ended {
            unwanted.push(run);
        }
        *newer += 1;
        if record.status == Status::Finished {
            finished.insert(&record.identity);
        }
    }
    unwanted.reverse();
    unwanted
}

/// The results that a run has.
fn results(run: &Path) -> Vec<Manifest> {
    let folders = fs::read_dir(run).into_iter().flatten().flatten();
    folders.filter_map(|entry| Manifest::read(&entry.path())).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Names of files that go; a file is freed with its last name.
#[derive(Default)]
struct Links(HashMap<(u64, u64), (u64, Metadata)>);

impl Links {
    /// Adds the file `path`, or all files below it.
    fn add(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        if metadata.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.add(&entry.path());
            }
        } else {
            self.0.entry((metadata.dev(), metadata.ino())).or_insert((0, metadata)).0 += 1;
        }
    }

    fn bytes(&self) -> u64 {
        let freed = self.0.values().filter(|(names, metadata)| *names >= metadata.nlink());
        freed.map(|(_, metadata)| metadata.len()).sum()
    }
}
