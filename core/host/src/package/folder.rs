//! The user's folder of plugins, held by one process at a time while it is changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::PackageError;

/// What is not finished, or not wanted any more, is called so; nobody looks for plugins there.
const ASIDE: &str = ".aside-";

/// Held while somebody changes the folder.
const LOCK: &str = ".lock";

/// The folder, locked until this is dropped.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Waits for whoever changes it now, and sweeps out what an interrupted change has left.
    pub(super) fn open(path: &Path) -> Result<Self, PackageError> {
        fs::create_dir_all(path).map_err(PackageError::io("make this folder", path))?;
        let lock = path.join(LOCK);
        let held = File::options().create(true).truncate(false).write(true).open(&lock);
        let held = held.and_then(|file| file.lock().map(|()| file));
        let folder = Self { path: path.to_owned(), _lock: held.map_err(PackageError::io("lock", lock))? };
        folder.sweep()?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder of its own beside the plugins, which goes away with what is left in it.
    pub(super) fn aside(&self) -> Result<TempDir, PackageError> {
        use std::os::unix::fs::PermissionsExt as _;
        tempfile::Builder::new()
            .prefix(ASIDE)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&self.path)
            .map_err(PackageError::io("make a folder in", &self.path))
    }

    /// Makes its names outlast a crash.
    pub(super) fn sync(&self) -> Result<(), PackageError> {
        sync(&self.path)
    }

    fn sweep(&self) -> Result<(), PackageError> {
        let failed = || PackageError::io("read this folder", &self.path);
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                let path = entry.path();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(PackageError::io("remove", path))?;
            }
        }
        Ok(())
    }
}

/// Makes what is in a folder, or a file, outlast a crash.
pub(super) fn sync(path: &Path) -> Result<(), PackageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(PackageError::io("sync", path))
}
