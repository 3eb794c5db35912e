//! A folder with a library and its sidecar.

use std::io;
use std::path::{Path, PathBuf};

use super::{PackageError, SIDECAR, Sidecar};

/// A package. What holds a library to its sidecar goes by the place of the file, however it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The folder.
    pub folder: PathBuf,
    /// What its sidecar says.
    pub sidecar: Sidecar,
}

impl Package {
    /// The package in `folder`; none where there is no sidecar.
    pub fn open(folder: &Path) -> Result<Option<Self>, PackageError> {
        let path = folder.join(SIDECAR);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Ok(Some(Self { folder: folder.to_owned(), sidecar: Sidecar::read(&path)? })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(PackageError::Read { path, source }),
        }
    }

    /// The package that the library at `path` belongs to: its sidecar lies beside it, and names it. A link belongs to
    /// the package of what it leads to; within a package there may be none.
    pub(crate) fn of(path: &Path) -> Result<Option<Self>, PackageError> {
        if let Some(package) = Self::beside(path)? {
            package.check_link()?;
            return Ok(Some(package));
        }
        match path.canonicalize() {
            Ok(file) if file != path => Self::beside(&file),
            // Whoever opens the file says what is wrong with it.
            _ => Ok(None),
        }
    }

    fn beside(path: &Path) -> Result<Option<Self>, PackageError> {
        let Some(parent) = path.parent() else { return Ok(None) };
        let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let package = Self::open(folder)?;
        Ok(package.filter(|package| path.file_name() == Some(package.sidecar.library.file.as_ref())))
    }

    /// Its library; the sidecar's parser has seen to it that the name leads nowhere else.
    pub fn library(&self) -> PathBuf {
        self.folder.join(&self.sidecar.library.file)
    }

    /// Its sidecar.
    pub fn path(&self) -> PathBuf {
        self.folder.join(SIDECAR)
    }

    /// What a link leads to may be anywhere, where nobody has asked for plugins.
    fn check_link(&self) -> Result<(), PackageError> {
        let path = self.library();
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => Err(PackageError::Link { path }),
            _ => Ok(()),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
