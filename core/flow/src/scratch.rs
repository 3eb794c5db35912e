//! A folder to try something in, beside the runs and hidden among them; it goes when it is dropped, and what a killed process
//! left goes when the next one comes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lock::Lock;
use crate::{Error, birth};

/// The beginning of its name.
pub(crate) const NAME: &str = ".verify-";

#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: Lock,
}

impl Scratch {
    /// A folder beside the run in `run`.
    pub(crate) fn beside(run: &Path) -> Result<Self, Error> {
        let runs = run.parent().unwrap_or(run);
        birth::sweep(runs);
        let id = run.file_name().unwrap_or_default().to_string_lossy();
        let path = runs.join(format!("{NAME}{id}-{}", std::process::id()));
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let lock = Lock::take(&path);
        if lock.is_err() {
            let _ = fs::remove_dir(&path);
        }
        Ok(Self { path, _lock: lock? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}
