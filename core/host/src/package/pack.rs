//! From a library to a package.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::folder::sync;
use super::{LibraryFile, PackageError, SIDECAR, Sidecar, words};
use crate::{Digest, Found, HostError};

/// Makes the package `NAME-VERSION` in the folder `into` from a library, and returns its folder. None of its code is
/// run.
pub fn pack(found: &Found, homepage: Option<String>, into: &Path) -> Result<PathBuf, HostError> {
    let sidecar = describe(found, homepage)?;
    let folder = into.join(format!("{}-{}", sidecar.name, sidecar.version));
    fs::create_dir_all(into).map_err(PackageError::io("make this folder", into))?;
    let aside = tempfile::tempdir_in(into).map_err(PackageError::io("make a folder in", into))?;
    fill(aside.path(), found, &sidecar)?;
    if folder.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(PackageError::Io { what: "make this folder", path: folder, source }.into());
    }
    fs::rename(aside.path(), &folder).map_err(PackageError::io("make this folder", &folder))?;
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&folder, everybody).map_err(PackageError::io("open to others", &folder))?;
    Ok(folder)
}

/// The sidecar of what was found: the one it has, or one that is made from its manifest. What it says can be read again.
pub(super) fn describe(found: &Found, homepage: Option<String>) -> Result<Sidecar, PackageError> {
    let held = found.package.as_ref().map(|package| &package.sidecar);
    if let (Some(sidecar), None) = (held, &homepage) {
        return Ok(sidecar.clone());
    }
    let file = found.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file =
        if words::library(&file).is_ok() { file } else { format!("lib{}.so", found.manifest.crate_name) };
    let library = LibraryFile { file, blake3: found.digest, bytes: found.bytes() };
    let sidecar = Sidecar::of(&found.manifest, homepage, library);
    Sidecar::parse(&sidecar.text(), Path::new(SIDECAR)).map_err(|error| match error {
        PackageError::Sidecar { message, .. } => {
            PackageError::Name(format!("{}: no package can be made of it: {message}", found.path.display()))
        }
        other => other,
    })
}

/// Writes library and sidecar into an empty folder, which outlast a crash then. Fails if the library is not the one that
/// was found any more.
pub(super) fn fill(folder: &Path, found: &Found, sidecar: &Sidecar) -> Result<(), HostError> {
    let path = folder.join(&sidecar.library.file);
    let digest = copy(&found.path, &path)?;
    if digest != sidecar.library.blake3 {
        return Err(HostError::Changed { plugin: found.name().to_owned(), path: found.path.clone() });
    }
    let path = folder.join(SIDECAR);
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(sidecar.text().as_bytes())?;
        file.sync_all()
    });
    written.map_err(PackageError::io("write", path))?;
    Ok(sync(folder)?)
}

/// Copies a file, and says the digest of what was written.
fn copy(from: &Path, to: &Path) -> Result<Digest, PackageError> {
    let mut reading = File::open(from).map_err(PackageError::io("read", from))?;
    let mut writing = File::create_new(to).map_err(PackageError::io("write", to))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reading.read(&mut buffer).map_err(PackageError::io("read", from))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        writing.write_all(&buffer[..read]).map_err(PackageError::io("write", to))?;
    }
    writing.sync_all().map_err(PackageError::io("write", to))?;
    Ok(hasher.finalize().into())
}
