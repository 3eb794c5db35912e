//! Why there is no report.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run could not be read, or a file not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the run's folder.
    #[error(transparent)]
    Run(#[from] fp8flow_flow::Error),
    /// A file of a training stage.
    #[error(transparent)]
    Training(#[from] fp8flow_train::TrainError),
    /// A file that grows.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that was to be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ReportError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Read { path: path.to_owned(), error }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Write { path: path.to_owned(), error }
    }
}
