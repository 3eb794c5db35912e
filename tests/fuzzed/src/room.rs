//! A folder of files for inputs that are read from disk.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::parts::Part;

/// A folder in memory, where there is one.
pub struct Room {
    folder: TempDir,
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

impl Room {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        let memory = tempfile::tempdir_in("/dev/shm");
        Self { folder: memory.or_else(|_| tempfile::tempdir()).expect("a place for temporary files") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folders are made");
        fs::write(&path, bytes).expect("a file is written");
        path
    }

    /// Makes the folder `name` hold those of `known` that are among `parts`, and no other of them.
    pub(crate) fn fill(&self, name: &str, known: &[&str], parts: &[Part<'_>]) -> PathBuf {
        let folder = self.path(name);
        for file in known {
            match parts.iter().find(|part| part.name == file.as_bytes()) {
                Some(part) => drop(self.write(&format!("{name}/{file}"), part.bytes)),
                None => drop(fs::remove_file(folder.join(file))),
            }
        }
        fs::create_dir_all(&folder).expect("a folder is made");
        folder
    }
}
