//! Why there is no project.

use std::io;
use std::path::{Path, PathBuf};

/// What stands between an author and a project.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// The name cannot be a plugin's, or a crate's.
    #[error("`{name}` cannot be the name of a plugin: {why}")]
    Name {
        /// What was asked for.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Something is where the project would be.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A file or folder that cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl AuthorError {
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Write { path: path.to_owned(), error }
    }
}
