//! Where two trainings of one stage have other bits: by step and tensor, not by file.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Difference, StageError};
use fp8flow_model::SafeFile;
use fp8flow_train::checkpoint::step_of;
use fp8flow_train::{CHECKPOINTS, DIGESTS, METRICS, Parting, compare};

use crate::failure::OrFail as _;

/// What of `files` counts, after the first step and tensor that differ.
pub(super) fn differences(
    stage: &str,
    folders: [&Path; 2],
    files: Vec<Difference>,
) -> Result<Vec<Difference>, StageError> {
    let found = compare(folders).or_fail()?;
    let whole = found.compared == found.steps[1];
    let mut differences: Vec<Difference> =
        found.parting.iter().map(|parting| parted(stage, parting)).collect();
    let counts = |difference: &Difference| match difference.file.as_deref() {
        // Times are in it; all else was compared step by step.
        Some(file) if file == Path::new(METRICS) => false,
        // The chain begins later where a run had none at first.
        Some(file) if file == Path::new(DIGESTS) => !whole,
        // An interruption leaves a checkpoint that a straight run has not.
        Some(file) if file.starts_with(CHECKPOINTS) => {
            let step = file.parent().unwrap_or(file);
            folders.iter().all(|folder| folder.join(step).is_dir())
        }
        _ => true,
    };
    for difference in files.into_iter().filter(counts) {
        let file = difference.file.clone().unwrap_or_default();
        let step = file.parent().and_then(step_of);
        let tensor = first_other_tensor(folders.map(|folder| folder.join(&file)));
        differences.push(Difference { step, tensor, ..difference });
    }
    Ok(differences)
}

/// The parting of two runs as a difference.
pub(crate) fn parted(stage: &str, parting: &Parting) -> Difference {
    Difference {
        stage: stage.to_owned(),
        file: None,
        step: Some(parting.step),
        tensor: parting.tensors.first().cloned(),
        what: parting.words(),
    }
}

/// The first tensor that two safetensors files hold with other bits.
pub(crate) fn first_other_tensor(paths: [PathBuf; 2]) -> Option<String> {
    if paths[0].extension()? != "safetensors" {
        return None;
    }
    let [a, b] = paths.map(|path| SafeFile::open(path).ok());
    let (a, b) = (a?, b?);
    let other = |name: &str, bytes: &[u8]| b.get(name).is_none_or(|tensor| tensor.bytes != bytes);
    a.iter().find(|(name, tensor)| other(name, tensor.bytes)).map(|(name, _)| name.to_owned())
}
