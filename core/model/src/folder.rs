//! The files of a model folder: which ones hold weights, read without trusting what they say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::SafeFile;
use crate::error::{AtPath, ModelError, json_error};

/// Weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Where each tensor is, if there are several files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Everything else that is known of a model.
pub(crate) const CONFIG: &str = "config.json";

/// The longest JSON file that is read: an index of a million tensors has less.
const LONGEST_JSON: u64 = 100_000_000;

/// The weight files of a folder, headers checked.
#[derive(Debug)]
pub(crate) struct WeightFiles {
    /// The files, by name.
    pub(crate) files: BTreeMap<String, SafeFile>,
    /// The file that the index names for each tensor; `None` without an index.
    pub(crate) index: Option<BTreeMap<String, String>>,
}

impl WeightFiles {
    /// Opens `model.safetensors` or, where it is absent, the files of `model.safetensors.index.json`.
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        folder.read_dir().at(folder, "read the model folder")?;
        if folder.join(SINGLE).exists() {
            let file = SafeFile::open(folder.join(SINGLE))?;
            return Ok(Self { files: BTreeMap::from([(SINGLE.to_owned(), file)]), index: None });
        }
        let index_path = folder.join(INDEX);
        if !index_path.exists() {
            let mut problem = format!("there is neither {SINGLE} nor {INDEX} in this folder");
            if ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|f| folder.join(f).exists()) {
                problem.push_str(
                    "; pickled weights are not read, since they can run code: save them as safetensors",
                );
            }
            return Err(ModelError::Folder { path: folder.to_path_buf(), problem });
        }
        let index = read_index(&index_path)?;
        let names: BTreeSet<&String> = index.values().collect();
        let files = names
            .into_iter()
            .map(|name| Ok((name.clone(), SafeFile::open(folder.join(name))?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { files, index: Some(index) })
    }
}

/// The index's file name of each tensor; none leads out of the folder.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let text = read_text(path)?;
    let index: Index = serde_json::from_str(&text).map_err(|error| json_error(path, &error))?;
    for (tensor, file) in &index.weight_map {
        if !is_plain_name(file) {
            let problem = format!("places `{tensor}` in {file:?}, which is no name of a file in this folder");
            return Err(ModelError::Folder { path: path.to_path_buf(), problem });
        }
    }
    Ok(index.weight_map)
}

/// Whether `name` names an entry of a folder and nothing above or below it.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    plain && components.next().is_none() && !name.contains(['\\', '\0'])
}

/// The text of a JSON file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    // A pipe would not be opened before somebody writes to it.
    if !std::fs::metadata(path).at(path, "open")?.is_file() {
        let source = std::io::Error::other("it is not a regular file");
        return Err(ModelError::Io { path: path.to_path_buf(), action: "read", source });
    }
    let file = File::open(path).at(path, "open")?;
    let mut text = String::new();
    file.take(LONGEST_JSON + 1).read_to_string(&mut text).at(path, "read")?;
    if text.len() as u64 > LONGEST_JSON {
        let problem = format!("longer than {LONGEST_JSON} bytes, which no such file is");
        return Err(ModelError::Folder { path: path.to_path_buf(), problem });
    }
    Ok(text)
}

/// `config.json` of a folder; a file stands for itself.
pub(crate) fn config_path(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(CONFIG) } else { path.to_path_buf() }
}
