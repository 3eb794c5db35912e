//! From a library to a package.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::folder::{self, sync};
use super::{LibraryFile, PackageError, SIDECAR, Sidecar, words};
use crate::{Digest, Found, HostError};

/// Makes the package `NAME-VERSION` in the folder `into` from a library, and returns its folder. None of its code is
/// run.
pub fn pack(found: &Found, homepage: Option<String>, into: &Path) -> Result<PathBuf, HostError> {
    let sidecar = describe(found, homepage)?;
    let folder = into.join(format!("{}-{}", sidecar.name, sidecar.version));
    fs::create_dir_all(into).map_err(PackageError::io("make this folder", into))?;
    let aside = folder::aside(into)?;
    fill(aside.path(), found, &sidecar).map_err(|error| match error {
        HostError::Package(error) => error.moved(aside.path(), &folder).into(),
        other => other,
    })?;
    match folder::place(aside.path(), &folder) {
        Ok(()) => Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(PackageError::Exists(folder).into())
        }
        Err(error) => Err(PackageError::io("make this folder", folder)(error).into()),
    }
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
    let written = File::options().read(true).write(true).create_new(true).open(to).and_then(|mut writing| {
        io::copy(&mut reading, &mut writing)?;
        writing.sync_all()?;
        writing.rewind()?;
        Digest::of(&writing)
    });
    written.map_err(PackageError::io("write", to))
}
