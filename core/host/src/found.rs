//! A plugin that was found: all that is known of it without opening it.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fp8flow_sdk::manifest::Mismatch;
use fp8flow_sdk::{Host, Manifest, RecipeInfo};

use crate::elf::NotAPlugin;
use crate::probe::Probe;
use crate::{Digest, HostError, Place, Plugin, library, seen};

/// A library with a manifest.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file, as an absolute path without links.
    pub path: PathBuf,
    /// The place that led to it.
    pub place: Place,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The digest of the file.
    pub digest: Digest,
    stamp: Stamp,
    settings: Arc<Settings>,
}

/// How plugins are checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Where it is remembered what was seen of plugins.
    pub(crate) cache: Option<PathBuf>,
    /// What tries a plugin that was never seen; none: this executable, where it answers probes.
    pub(crate) probe: Option<Probe>,
}

impl Found {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Whether this fp8flow can load it: the handshake.
    pub fn compatible(&self) -> Result<(), Mismatch> {
        self.manifest.check()
    }

    /// Its recipes with their options, if this very file was ever opened. Opens nothing.
    pub fn recipes(&self) -> Option<Vec<RecipeInfo>> {
        seen::recall(self.settings.cache.as_deref()?, &self.digest)
    }

    /// Fails unless it is the file that was pinned.
    pub fn pin(&self, pinned: &Digest) -> Result<(), HostError> {
        if self.digest == *pinned {
            return Ok(());
        }
        Err(HostError::Pinned {
            plugin: self.name().to_owned(),
            path: self.path.clone(),
            pinned: Box::new(*pinned),
            found: Box::new(self.digest),
        })
    }

    /// Opens the library, unless this process has done so already, and starts a backend on `host`.
    pub fn open(&self, host: &Host) -> Result<Plugin, HostError> {
        self.compatible().map_err(|mismatch| HostError::Mismatch {
            plugin: self.name().to_owned(),
            path: self.path.clone(),
            mismatch,
        })?;
        let never_seen = self.recipes().is_none();
        let probe = self.settings.probe.clone().or_else(Probe::this_executable).filter(|_| never_seen);
        if let Some(probe) = probe.as_ref().filter(|_| !library::is_open(&self.digest)) {
            probe.run(&self.path).map_err(|failure| HostError::Probe {
                plugin: self.name().to_owned(),
                path: self.path.clone(),
                failure: Box::new(failure),
            })?;
        }
        let opened = library::open(self)?;
        let backend = opened.library.start(host)?;
        if let (Some(_), Some(cache)) = (probe, &self.settings.cache) {
            seen::remember(cache, &self.digest, &opened.recipes);
        }
        Ok(Plugin::new(self.clone(), host.clone(), opened.recipes, backend))
    }

    /// Fails if the file is not the one whose digest was taken.
    pub(crate) fn unchanged(&self) -> Result<(), HostError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if Stamp::of(&metadata) == self.stamp => Ok(()),
            _ => Err(HostError::Changed { plugin: self.name().to_owned(), path: self.path.clone() }),
        }
    }
}

/// A library with a manifest whose digest was not taken yet.
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    file: File,
}

impl Candidate {
    /// Looks into the file at `path`.
    pub(crate) fn look(path: &Path) -> Result<Self, NotAPlugin> {
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(NotAPlugin::NotAFile);
        }
        let file = File::open(path)?;
        let manifest = crate::elf::read_manifest(&file)?;
        Ok(Self { path: path.canonicalize()?, manifest, file })
    }

    /// Its name, and why this fp8flow cannot load it, if so.
    pub(crate) fn mismatch(&self) -> Option<(&str, Mismatch)> {
        self.manifest.check().err().map(|mismatch| (self.manifest.name.as_str(), mismatch))
    }

    /// Takes the digest.
    pub(crate) fn digest(mut self, place: &Place, settings: &Arc<Settings>) -> Result<Found, NotAPlugin> {
        let stamp = Stamp::of(&self.file.metadata()?);
        std::io::Seek::rewind(&mut self.file)?;
        Ok(Found {
            digest: Digest::of(&self.file)?,
            path: self.path,
            place: place.clone(),
            manifest: self.manifest,
            stamp,
            settings: settings.clone(),
        })
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
