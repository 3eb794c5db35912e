//! Files written once, from front to back, with their digest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::{AtPath, ModelError};

/// Bytes gathered before they go to the file.
const BUFFER: usize = 1 << 20;

/// A file that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its size in bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: blake3::Hash,
}

/// A file that digests what is written to it.
pub(crate) struct NewFile {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl NewFile {
    /// Creates `path`, lets `body` write it and waits until the disk has it. A file that exists is an error; on an
    /// error no file remains.
    pub(crate) fn write(
        path: &Path,
        body: impl FnOnce(&mut BufWriter<Self>) -> io::Result<()>,
    ) -> Result<Written, ModelError> {
        let file = File::create_new(path).at(path, "create")?;
        let new = Self { file, hasher: blake3::Hasher::new(), bytes: 0 };
        let mut out = BufWriter::with_capacity(BUFFER, new);
        let written = body(&mut out)
            .and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(|new| new.file.sync_all().map(|()| new));
        match written {
            Ok(new) => Ok(Written { bytes: new.bytes, digest: new.hasher.finalize() }),
            Err(error) => {
                // The error that led here says more than a second one would.
                let _ = std::fs::remove_file(path);
                Err(error).at(path, "write")
            }
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.hasher.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file_and_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let error = NewFile::write(&path, |out| {
            out.write_all(&vec![0; 3 * BUFFER])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let expected = format!("{}: cannot write: no storage space", path.display());
        assert_eq!(error.unwrap_err().to_string(), expected);
        assert!(!path.exists());
    }
}
