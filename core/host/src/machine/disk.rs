//! The file system that a folder lies on, or would.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

/// A file system, seen from a folder on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The folder, or the nearest one above it that exists.
    pub folder: PathBuf,
    /// Bytes that this user can still write.
    pub free: u64,
    /// Whether this user may write there.
    pub writable: bool,
    /// Which file system: the same number for the same one.
    pub device: u64,
}

impl Disk {
    /// The file system of `folder`, which need not exist yet.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(folder)?;
        let there = absolute.ancestors().find(|path| path.exists());
        let folder = there.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.to_owned();
        let about = statvfs(&folder)?;
        Ok(Self {
            free: about.f_bavail.saturating_mul(about.f_frsize),
            writable: access(&folder, Access::WRITE_OK).is_ok(),
            device: folder.metadata()?.dev(),
            folder,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_lies_where_it_would_be_made() {
        let here = tempfile::tempdir().unwrap();
        let disk = Disk::of(&here.path().join("runs/of/tomorrow")).unwrap();
        assert_eq!(disk.folder, here.path());
        assert!(disk.writable && disk.free > 0, "{disk:?}");
        assert_eq!(Disk::of(here.path()).unwrap().device, disk.device);
    }
}
