//! Files as memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{AtPath, ModelError};

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps all of `path`; nothing is read yet.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).at(path, "open")?;
        if !file.metadata().at(path, "read")?.is_file() {
            let source = std::io::Error::other("it is not a regular file");
            return Err(ModelError::Io { path: path.to_path_buf(), action: "map", source });
        }
        // SAFETY: the mapping is read only, and its length is the file's at this moment. Nobody may shorten or
        // rewrite the file while it is mapped; our own writers never do (they write aside and rename, so that a
        // mapped file keeps its bytes), and a weights file that another program changes under a run is outside
        // what any reader could promise.
        let map = unsafe { Mmap::map(&file) }.at(path, "map")?;
        Ok(Self(map))
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
