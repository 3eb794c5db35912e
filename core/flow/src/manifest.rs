//! What a finished stage left: every file with its size and digest. It is the proof that a stage is done, and is
//! checked before a result is used again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::begun::Begun;
use crate::consulted::Consulted;
use crate::outside::Outside;
use crate::{Artifact, Error, Outcome, atomic, digest, relocate};

/// The name of the manifest in a stage's folder.
pub(crate) const FILE: &str = "stage.json";

/// The version of its shape.
pub(crate) const FORMAT: u32 = 4;

/// A finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) stage: String,
    pub(crate) uses: String,
    /// Its values, defaults written out.
    pub(crate) params: Map<String, Value>,
    /// What it was made from, as far as that was known before.
    pub(crate) begun: Begun,
    /// What it looked at beside that.
    pub(crate) consulted: Consulted,
    /// The files outside the run that it was made from.
    pub(crate) read: Vec<Outside>,
    /// The workflow's folder at that time.
    pub(crate) workflow: PathBuf,
    /// The run that made it.
    pub(crate) run: String,
    pub(crate) artifact: Artifact,
    pub(crate) summary: String,
    pub(crate) report: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) finished: String,
    /// How it came about ([`Outcome::account`]).
    pub(crate) account: Value,
    /// What of the outputs is no part of the result ([`Outcome::aside`]).
    pub(crate) aside: Vec<PathBuf>,
    /// Files and folders outside the stage's folder that hold outputs.
    pub(crate) wrote: Vec<PathBuf>,
    pub(crate) outputs: Vec<Output>,
    /// Digest of the artifact, of what was read and of the outputs that are not aside.
    pub(crate) result: String,
}

/// A file of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// Within the stage's folder, or absolute.
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) blake3: String,
}

impl Manifest {
    /// Reads the manifest in `folder`; `None` if there is none or it cannot be understood.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the manifest into `folder`: from now on the stage is done.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        atomic::write_json(&folder.join(FILE), self)
    }

    /// Why the result in `folder` cannot be used again, if so. `now` is what it would be made from, `workflow` the
    /// workflow's folder.
    pub(crate) fn objection(&self, folder: &Path, now: &Begun, workflow: &Path) -> Option<Objection> {
        if self.format != FORMAT {
            return Some(Objection::stale(format!(
                "its manifest has format {}, which this version does not know",
                self.format
            )));
        }
        let outside = || self.read.iter().find_map(|outside| outside.difference(workflow));
        if let Some(difference) = self.begun.difference(now).or_else(outside) {
            return Some(Objection::stale(difference));
        }
        if !self.matches_itself() {
            return Some(Objection::damage("its manifest does not match itself".into()));
        }
        self.damage(folder).map(Objection::damage)
    }

    /// The first file of the result in `folder` that is not as it was written, in words.
    pub(crate) fn damage(&self, folder: &Path) -> Option<String> {
        self.outputs.iter().find_map(|output| output.damage(&folder.join(&output.path)))
    }

    /// Whether nobody has edited it.
    pub(crate) fn matches_itself(&self) -> bool {
        self.result == result(&self.artifact, &self.workflow, &self.read, self.counting())
    }

    /// The outputs that make the result.
    pub(crate) fn counting(&self) -> impl Iterator<Item = &Output> {
        counting(&self.outputs, &self.aside)
    }
}

impl Output {
    /// Whether it lies outside the stage's folder.
    pub(crate) fn is_outside(&self) -> bool {
        self.path.is_absolute()
    }

    /// In words, how the file `path` differs from this, if it does.
    pub(crate) fn damage(&self, path: &Path) -> Option<String> {
        let output = self;
        match digest::of_file(path) {
            Ok((size, _)) if size != output.size => {
                Some(format!("{} has {size} bytes, not {}", path.display(), output.size))
            }
            Ok((_, blake3)) if blake3 != output.blake3 => {
                Some(format!("{} has other contents than it was written with", path.display()))
            }
            Ok(_) => None,
            Err(error) => Some(format!("{}: {error}", path.display())),
        }
    }
}

/// The files of a finished stage's result with their digests; `None` where the stage in `folder` is not finished.
pub fn written(folder: &Path) -> Option<Vec<(PathBuf, String)>> {
    let outputs = Manifest::read(folder)?.outputs;
    Some(outputs.into_iter().map(|output| (output.path, output.blake3)).collect())
}

/// Why a result cannot be used again.
pub(crate) struct Objection {
    /// In words.
    pub(crate) message: String,
    /// Whether it was made from something else than it would be now, so that nothing of it is a place to go on from.
    pub(crate) stale: bool,
}

impl Objection {
    fn stale(message: String) -> Self {
        Self { message, stale: true }
    }

    fn damage(message: String) -> Self {
        Self { message, stale: false }
    }
}

/// Digests and syncs everything that a stage left, so that its manifest may claim it; `None` where `proceed` says no.
pub(crate) fn outputs(
    folder: &Path,
    outside: &[PathBuf],
    proceed: &dyn Fn() -> bool,
) -> Result<Option<Vec<Output>>, Error> {
    let mut outputs = Vec::new();
    let mut whole = walk(folder, Path::new(""), proceed, &mut outputs)?;
    for path in outside {
        whole = whole && walk(Path::new("/"), path, proceed, &mut outputs)?;
    }
    outputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(whole.then_some(outputs))
}

/// What `outcome` says was written outside the stage's folder, as absolute paths.
pub(crate) fn wrote(outcome: &Outcome) -> Result<Vec<PathBuf>, Error> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(Error::io("find", path));
    outcome.outside.iter().map(absolute).collect()
}

/// Those of `outputs` that are not `aside`.
pub(crate) fn counting<'a>(outputs: &'a [Output], aside: &'a [PathBuf]) -> impl Iterator<Item = &'a Output> {
    outputs.iter().filter(|output| !aside.iter().any(|aside| output.path.starts_with(aside)))
}

/// The digest of a result, the same wherever the run and the workflow lie.
pub(crate) fn result<'a>(
    artifact: &Artifact,
    workflow: &Path,
    read: &[Outside],
    outputs: impl Iterator<Item = &'a Output>,
) -> String {
    let mut info = artifact.info.clone();
    relocate::forget(&mut info, Some(&artifact.dir), workflow);
    let outputs = outputs.map(|output| {
        let path = relocate::forgotten(&output.path, workflow);
        json!({ "path": path, "size": output.size, "blake3": output.blake3 })
    });
    let outputs: Vec<Value> = outputs.collect();
    // When a file was written is no part of what it is.
    let read = read.iter().map(|Outside { path, found }| {
        let found = found.as_ref().map(|found| json!({ "size": found.size, "blake3": found.blake3 }));
        json!({ "path": path, "found": found })
    });
    let read: Vec<Value> = read.collect();
    digest::of_json(&json!({ "kind": artifact.kind, "info": info, "read": read, "outputs": outputs }))
}

/// Adds the files at `path`, a file or a folder, and says whether it came to the end. Names that begin with a dot are
/// somebody's scratch; links lead elsewhere.
fn walk(
    root: &Path,
    path: &Path,
    proceed: &dyn Fn() -> bool,
    outputs: &mut Vec<Output>,
) -> Result<bool, Error> {
    let full = root.join(path);
    if full.is_dir() {
        let entries = fs::read_dir(&full).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(Error::io("list", &full))? {
            let inner = path.join(entry.file_name());
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let link = entry.file_type().map_err(Error::io("look at", &entry.path()))?.is_symlink();
            let counts = !hidden && !link && inner != Path::new(FILE);
            if counts && !walk(root, &inner, proceed, outputs)? {
                return Ok(false);
            }
        }
        let synced = File::open(&full).and_then(|folder| folder.sync_all());
        return synced.map(|()| true).map_err(Error::io("sync", &full));
    }
    let synced = File::open(&full).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync", &full))?;
    let digest = digest::of_file_while(&full, proceed).map_err(Error::io("read", &full))?;
    let Some((size, blake3)) = digest else { return Ok(false) };
    outputs.push(Output { path: path.to_owned(), size, blake3 });
    Ok(true)
}
