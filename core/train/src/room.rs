//! Whether the disk has room for what is about to be written: a run that cannot save is refused before it has worked.

use std::path::Path;

use fp8flow_model::Parameters;
use rustix::fs::statvfs;

use crate::TrainError;

/// Bytes of a parameter in a checkpoint: the f32 master and two moments.
const PARAMETER: u64 = 12;
/// Most that the three entries of a parameter take in the headers.
const ENTRIES: u64 = 3 * 256;
/// Configuration, state and manifest, and what the file system keeps of them.
const SMALL: u64 = 64 << 10;

/// Bytes of a checkpoint of `parameters`, at most; state of a recipe is small.
pub(crate) fn of_checkpoint(parameters: &Parameters) -> u64 {
    let elements: u64 =
        parameters.specs().iter().map(|spec| spec.shape.iter().product::<usize>() as u64).sum();
    PARAMETER * elements + ENTRIES * parameters.specs().len() as u64 + SMALL
}

/// Fails unless `folder` has room for `needed` bytes. Where the file system does not tell, writing will.
pub(crate) fn expect(folder: &Path, needed: u64) -> Result<(), TrainError> {
    let Ok(about) = statvfs(folder) else { return Ok(()) };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    if free < needed {
        return Err(TrainError::NoRoom { folder: folder.to_owned(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_disk_has_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        expect(folder.path(), 1).unwrap();
        let said = expect(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(
            said.contains(&format!("{} bytes are needed", u64::MAX)) && said.contains("are free"),
            "{said}"
        );
    }
}
