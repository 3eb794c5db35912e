//! A sidecar as it is read: whatever stands in the file, the answer is a sidecar or a place and what is wrong there.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{LibraryFile, MANIFEST, PackageError, Sidecar, words};

/// More bytes than any honest sidecar has.
const LIMIT: u64 = 64 * 1024;

/// Most words of a list.
const MOST_WORDS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// As [`Version`] has it.
    #[serde(rename = "manifest")]
    _manifest: serde::de::IgnoredAny,
    name: Spanned<String>,
    version: Spanned<String>,
    about: Option<Spanned<String>>,
    license: Option<Spanned<String>>,
    homepage: Option<Spanned<String>>,
    sdk: Spanned<String>,
    c_abi: Option<u32>,
    numerics: u32,
    target: Spanned<String>,
    recipes: Spanned<Vec<Spanned<String>>>,
    devices: Spanned<Vec<Spanned<String>>>,
    library: RawLibrary,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLibrary {
    file: Spanned<String>,
    blake3: Spanned<String>,
    bytes: u64,
}

/// The version alone: another one may have any keys.
#[derive(Deserialize)]
struct Version {
    manifest: Spanned<u32>,
}

/// What is wrong, and at which bytes.
struct Wrong(Range<usize>, String);

impl Sidecar {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, PackageError> {
        let unreadable = |source| PackageError::Read { path: path.to_owned(), source };
        let mut text = Vec::new();
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is not a regular file")));
        }
        File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text)).map_err(unreadable)?;
        if text.len() as u64 > LIMIT {
            let message = format!("it has more than {LIMIT} bytes, more than any sidecar");
            return Err(PackageError::Sidecar { path: path.to_owned(), line: 1, column: 1, message });
        }
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text, path)
    }

    /// Reads `text`, which stands in the file `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PackageError> {
        read(text).map_err(|Wrong(at, message)| {
            let (line, column) = position(text, at.start);
            // It may quote anything that stands in the file.
            let message = message.trim().replace(char::is_control, " ");
            PackageError::Sidecar { path: path.to_owned(), line, column, message }
        })
    }
}

fn read(text: &str) -> Result<Sidecar, Wrong> {
    let wrong = |error: toml::de::Error| Wrong(error.span().unwrap_or(0..0), error.message().to_owned());
    let Version { manifest } = toml::from_str(text).map_err(wrong)?;
    if *manifest.get_ref() != MANIFEST {
        let message = format!(
            "manifest {} is not known; this fp8flow knows {MANIFEST}: use a newer fp8flow",
            manifest.get_ref()
        );
        return Err(Wrong(manifest.span(), message));
    }
    let raw: Raw = toml::from_str(text).map_err(wrong)?;
    let RawLibrary { file, blake3, bytes } = raw.library;
    let at = blake3.span();
    let digest = blake3.into_inner();
    let blake3 = digest.parse().map_err(|error: crate::digest::DigestError| Wrong(at, error.to_string()))?;
    Ok(Sidecar {
        name: checked(raw.name, words::name)?,
        version: checked(raw.version, words::name)?,
        about: raw.about.map(|about| checked(about, words::line)).transpose()?.unwrap_or_default(),
        license: raw.license.map(|license| checked(license, words::line)).transpose()?.unwrap_or_default(),
        homepage: raw.homepage.map(|page| checked(page, words::address)).transpose()?,
        sdk: checked(raw.sdk, words::word)?,
        c_abi: raw.c_abi,
        numerics: raw.numerics,
        target: checked(raw.target, words::word)?,
        recipes: list(raw.recipes)?,
        devices: list(raw.devices)?,
        library: LibraryFile { file: checked(file, words::library)?, blake3, bytes },
    })
}

fn checked(text: Spanned<String>, rule: fn(&str) -> Result<(), String>) -> Result<String, Wrong> {
    rule(text.get_ref()).map_err(|message| Wrong(text.span(), message))?;
    Ok(text.into_inner())
}

fn list(words: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, Wrong> {
    let (at, count) = (words.span(), words.get_ref().len());
    if count == 0 || count > MOST_WORDS {
        return Err(Wrong(at, format!("{count} words, where there should be from 1 to {MOST_WORDS}")));
    }
    words.into_inner().into_iter().map(|word| checked(word, words::word)).collect()
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at.min(text.len()))];
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
