//! The user's folder of plugins, held by one process at a time while it is changed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
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

    /// [`aside`], beside the plugins.
    pub(super) fn aside(&self) -> Result<TempDir, PackageError> {
        aside(&self.path)
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

/// A folder of its own in `parent`, open to others, which goes away with what is left in it.
pub(super) fn aside(parent: &Path) -> Result<TempDir, PackageError> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix(ASIDE)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(PackageError::io("make a folder in", parent))
}

/// Puts the folder `aside` where `target` is to be; an error of the kind `AlreadyExists` if something is there.
pub(super) fn place(aside: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, target, RenameFlags::NOREPLACE) {
        // Some file systems cannot; what is not empty is left alone there, too.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(target).is_ok() => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(aside, target),
        renamed => Ok(renamed?),
    }
}

/// Puts the folder `aside` where `target` is, and what was there where `aside` is.
pub(super) fn exchange(aside: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, target, RenameFlags::EXCHANGE) {
        // Some file systems cannot: then there is a moment with neither.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let old = aside.with_extension("old");
            fs::rename(target, &old)?;
            fs::rename(aside, target)?;
            fs::rename(&old, aside)
        }
        exchanged => Ok(exchanged?),
    }
}

/// Makes what is in a folder, or a file, outlast a crash.
pub(super) fn sync(path: &Path) -> Result<(), PackageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(PackageError::io("sync", path))
}
