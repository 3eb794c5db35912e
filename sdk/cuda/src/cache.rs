//! Machine code kept on disk, by everything that it was made from.
//!
//! A file is named by the digest of source, headers, options and compiler, and starts with the digest of what follows:
//! one that is damaged is made again. It is written aside and renamed, so that it is whole or absent, and a folder that
//! cannot be written costs only time.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::card::Architecture;
use crate::places::mapped;
use crate::source::HEADERS;
use crate::{Result, Source, compile};

/// Bytes of a digest.
const DIGEST: usize = blake3::OUT_LEN;

/// The machine code of `source` for `architecture`: from disk, or compiled and put there.
pub fn cubin(source: Source, architecture: Architecture) -> Result<Vec<u8>> {
    let (major, minor) = compile::version()?;
    let path = folder("cubins").map(|folder| {
        let key = key(source, architecture, (major, minor));
        folder.join(format!("{}-{}-{}.cubin", source.name, architecture.name(), &key[..32]))
    });
    if let Some(cubin) = path.as_deref().and_then(read) {
        return Ok(cubin);
    }
    let compiled = compile::compile(source, architecture)?;
    tracing::debug!(kernel = source.name, architecture = architecture.name(), "compiled");
    if let Some(path) = path
        && let Err(error) = write(&path, &compiled.cubin)
    {
        tracing::debug!(%error, path = %path.display(), "machine code is not kept");
    }
    Ok(compiled.cubin)
}

fn key(source: Source, architecture: Architecture, (major, minor): (u32, u32)) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    // Two libraries of one version are not one: that of tests makes code for no card at all.
    add(&format!("nvrtc {major}.{minor} {}", mapped("libnvrtc.so").unwrap_or_default()));
    for option in compile::options(architecture) {
        add(&option);
    }
    for (name, text) in HEADERS.into_iter().chain([(source.name, source.text)]) {
        add(name);
        add(text);
    }
    hasher.finalize().to_hex().to_string()
}

/// The folder `kind` of the user's cache.
pub(crate) fn folder(kind: &str) -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(cache.or_else(|| named("HOME").map(|home| home.join(".cache")))?.join("fp8flow").join(kind))
}

/// What [`write`] has put into the file at `path`, if it is whole.
pub(crate) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let (digest, content) = bytes.split_at_checked(DIGEST)?;
    let whole = !content.is_empty() && blake3::hash(content).as_bytes() == digest;
    whole.then(|| bytes.split_off(DIGEST))
}

/// Puts `content` behind its digest into the file at `path`, whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&aside)?;
        file.write_all(blake3::hash(content).as_bytes())?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_is_whole_or_made_again() {
        let folder = std::env::temp_dir().join(format!("fp8flow-cubins-{}", std::process::id()));
        let path = folder.join("add.cubin");
        assert_eq!(read(&path), None);
        write(&path, b"code").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"code"[..]));
        fs::write(&path, b"short").unwrap();
        assert_eq!(read(&path), None);
        write(&path, b"code").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_key_is_of_the_text_the_architecture_and_the_compiler() {
        let add = Source { name: "add", text: "a" };
        let base = key(add, Architecture::Ada, (12, 9));
        assert_ne!(base, key(Source { text: "b", ..add }, Architecture::Ada, (12, 9)));
        assert_ne!(base, key(add, Architecture::Hopper, (12, 9)));
        assert_ne!(base, key(add, Architecture::Ada, (13, 0)));
        assert_eq!(base, key(add, Architecture::Ada, (12, 9)));
    }
}
