//! What stands in a sidecar.

use std::fmt::Write as _;

use fp8flow_sdk::Manifest;

use super::{MANIFEST, PackageError};
use crate::Digest;

/// What is handed on beside a library. The words are those of the library's own manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The name in `[backend] plugin`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// One sentence, or nothing.
    pub about: String,
    /// Its licence, as SPDX names it, or nothing.
    pub license: String,
    /// Where more is said about it.
    pub homepage: Option<String>,
    /// The SDK it was built with.
    pub sdk: String,
    /// Of a plugin in C: the contract of its header.
    pub c_abi: Option<u32>,
    /// The numerics revision of the kernels it was built with.
    pub numerics: u32,
    /// Architecture, system and C library.
    pub target: String,
    /// The recipes it brings.
    pub recipes: Vec<String>,
    /// The devices it runs on.
    pub devices: Vec<String>,
    /// Its library.
    pub library: LibraryFile,
}

/// The library beside a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFile {
    /// Its name; it lies in the same folder.
    pub file: String,
    /// The digest of its bytes.
    pub blake3: Digest,
    /// How many there are.
    pub bytes: u64,
}

impl Sidecar {
    /// The sidecar of a library with this manifest.
    pub(super) fn of(manifest: &Manifest, homepage: Option<String>, library: LibraryFile) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            about: manifest.about.clone(),
            license: manifest.license.clone(),
            homepage,
            sdk: manifest.sdk.clone(),
            c_abi: manifest.c_abi,
            numerics: manifest.numerics,
            target: manifest.target.clone(),
            recipes: manifest.recipes.clone(),
            devices: manifest.devices.clone(),
            library,
        }
    }

    /// Fails unless it says of the library what the library says of itself.
    pub(crate) fn fits(&self, manifest: &Manifest) -> Result<(), PackageError> {
        let quoted = |text: &str| format!("{text:?}");
        let listed = |words: &[String]| format!("{words:?}");
        let number = |number: Option<u32>| number.map_or("nothing".to_owned(), |number| number.to_string());
        let pairs = [
            ("name", quoted(&self.name), quoted(&manifest.name)),
            ("version", quoted(&self.version), quoted(&manifest.version)),
            ("about", quoted(&self.about), quoted(&manifest.about)),
            ("license", quoted(&self.license), quoted(&manifest.license)),
            ("sdk", quoted(&self.sdk), quoted(&manifest.sdk)),
            ("c_abi", number(self.c_abi), number(manifest.c_abi)),
            ("numerics", self.numerics.to_string(), manifest.numerics.to_string()),
            ("target", quoted(&self.target), quoted(&manifest.target)),
            ("recipes", listed(&self.recipes), listed(&manifest.recipes)),
            ("devices", listed(&self.devices), listed(&manifest.devices)),
        ];
        match pairs.into_iter().find(|(_, sidecar, library)| sidecar != library) {
            None => Ok(()),
            Some((key, sidecar, library)) => Err(PackageError::Contradiction { key, sidecar, library }),
        }
    }

    /// Fails unless its library has so many bytes.
    pub(crate) fn has_bytes(&self, bytes: u64) -> Result<(), PackageError> {
        if self.library.bytes == bytes {
            return Ok(());
        }
        let (sidecar, library) = (self.library.bytes.to_string(), bytes.to_string());
        Err(PackageError::Contradiction { key: "library.bytes", sidecar, library })
    }

    /// The text that [`Sidecar::parse`] reads.
    pub fn text(&self) -> String {
        let Self {
            name,
            version,
            about,
            license,
            homepage,
            sdk,
            c_abi,
            numerics,
            target,
            recipes,
            devices,
            library,
        } = self;
        let LibraryFile { file, blake3, bytes } = library;
        let mut text = format!(
            "# What fp8flow holds the library beside this file to; `fp8flow plugin install` takes both.\n\
             manifest = {MANIFEST}\n\nname = {}\nversion = {}\n",
            string(name),
            string(version)
        );
        for (key, value) in
            [("about", Some(about)), ("license", Some(license)), ("homepage", homepage.as_ref())]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let _ = writeln!(text, "{key} = {}", string(value));
            }
        }
        let list = |words: &[String]| words.iter().map(|word| string(word)).collect::<Vec<_>>().join(", ");
        let _ = write!(
            text,
            "sdk = {}\n{}numerics = {numerics}\ntarget = {}\nrecipes = [{}]\ndevices = [{}]\n\n\
             [library]\nfile = {}\nblake3 = \"{blake3}\"\nbytes = {bytes}\n",
            string(sdk),
            c_abi.map_or(String::new(), |c_abi| format!("c_abi = {c_abi}\n")),
            string(target),
            list(recipes),
            list(devices),
            string(file),
        );
        text
    }
}

/// As TOML writes it.
fn string(text: &str) -> String {
    toml::Value::from(text).to_string()
}
