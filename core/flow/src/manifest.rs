//! What a finished stage left: every file with its size and digest. It is the proof that a stage is done, and is
//! checked before a result is used again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Artifact, Error, Outcome, atomic, digest};

/// The name of the manifest in a stage's folder.
pub(crate) const FILE: &str = "stage.json";

/// A finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) stage: String,
    pub(crate) uses: String,
    /// Its values, defaults written out.
    pub(crate) params: Map<String, Value>,
    /// The results it was made from: edge, and [`Manifest::result`] of that stage.
    pub(crate) inputs: BTreeMap<String, String>,
    pub(crate) artifact: Artifact,
    pub(crate) summary: String,
    pub(crate) report: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) finished: String,
    pub(crate) outputs: Vec<Output>,
    /// Digest of the artifact and of all outputs.
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

    /// Why the result in `folder` cannot be used again, if so. `inputs` are the results it would be made from now.
    pub(crate) fn objection(&self, folder: &Path, inputs: &BTreeMap<String, String>) -> Option<String> {
        if self.format != 1 {
            return Some(format!(
                "its manifest has format {}, which this version does not know",
                self.format
            ));
        }
        if let Some((edge, _)) = inputs.iter().find(|(edge, result)| self.inputs.get(*edge) != Some(result)) {
            return Some(format!("`{edge}` has changed"));
        }
        if self.result != result(&self.artifact, &self.outputs) {
            return Some("its manifest does not match itself".into());
        }
        self.outputs.iter().find_map(|output| {
            let path = folder.join(&output.path);
            match digest::of_file(&path) {
                Ok((size, _)) if size != output.size => {
                    Some(format!("{} has {size} bytes, not {}", path.display(), output.size))
                }
                Ok((_, blake3)) if blake3 != output.blake3 => {
                    Some(format!("{} has other contents than it was written with", path.display()))
                }
                Ok(_) => None,
                Err(error) => Some(format!("{}: {error}", path.display())),
            }
        })
    }
}

/// Digests and syncs everything that a stage left, so that its manifest may claim it.
pub(crate) fn outputs(folder: &Path, outcome: &Outcome) -> Result<Vec<Output>, Error> {
    let mut outputs = Vec::new();
    walk(folder, Path::new(""), &mut outputs)?;
    for path in &outcome.outside {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        walk(Path::new("/"), &path, &mut outputs)?;
    }
    outputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(outputs)
}

pub(crate) fn result(artifact: &Artifact, outputs: &[Output]) -> String {
    digest::of_json(&serde_json::json!({ "kind": artifact.kind, "info": artifact.info, "outputs": outputs }))
}

/// Adds the files at `path`, a file or a folder. Names that begin with a dot are somebody's scratch; links lead
/// elsewhere.
fn walk(root: &Path, path: &Path, outputs: &mut Vec<Output>) -> Result<(), Error> {
    let full = root.join(path);
    if full.is_dir() {
        let entries = fs::read_dir(&full).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(Error::io("list", &full))? {
            let inner = path.join(entry.file_name());
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let link = entry.file_type().map_err(Error::io("look at", &entry.path()))?.is_symlink();
            if !hidden && !link && inner != Path::new(FILE) {
                walk(root, &inner, outputs)?;
            }
        }
        return File::open(&full).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", &full));
    }
    let synced = File::open(&full).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync", &full))?;
    let (size, blake3) = digest::of_file(&full).map_err(Error::io("read", &full))?;
    outputs.push(Output { path: path.to_owned(), size, blake3 });
    Ok(())
}
