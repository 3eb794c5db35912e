//! A plugin that was found: all that is known of it without opening it.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fp8flow_sdk::manifest::Mismatch;
use fp8flow_sdk::{Host, Manifest, RecipeInfo};

use crate::crash::Subject;
use crate::elf::NotAPlugin;
use crate::package::{Package, PackageError};
use crate::probe::Probe;
use crate::{Digest, HostError, Place, Plugin, crash, library, seen};

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
    /// The package it belongs to, whose sidecar it was held against.
    pub package: Option<Arc<Package>>,
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

    /// Where more is said about it, if its sidecar says so.
    pub fn homepage(&self) -> Option<&str> {
        self.package.as_ref()?.sidecar.homepage.as_deref()
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

    /// [`Found::compatible`], as an error of this crate.
    pub(crate) fn fits(&self) -> Result<(), HostError> {
        self.compatible().map_err(|mismatch| HostError::Mismatch {
            plugin: self.name().to_owned(),
            path: self.path.clone(),
            mismatch,
        })
    }

    /// Opens and starts it in a child process, also where that was done before, and fails if the child does not survive or
    /// has an objection. Where there is no probe, nothing is tried.
    pub(crate) fn examine(&self) -> Result<(), HostError> {
        let Some(probe) = self.settings.probe.clone().or_else(Probe::this_executable) else { return Ok(()) };
        match self.try_in(&probe)? {
            None => Ok(()),
            Some(objection) => Err(HostError::Objection(objection)),
        }
    }

    /// What a child process that opens and starts it objects to, if it survives.
    fn try_in(&self, probe: &Probe) -> Result<Option<String>, HostError> {
        probe.run(&self.path).map_err(|failure| HostError::Probe {
            plugin: self.name().to_owned(),
            path: self.path.clone(),
            failure: Box::new(failure),
        })
    }

    /// What a crash tells of it.
    pub(crate) fn subject(&self) -> Subject {
        Subject::new(self.name(), &self.path)
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// Opens the library, unless this process has done so already, and starts a backend on `host`.
    pub fn open(&self, host: &Host) -> Result<Plugin, HostError> {
        self.fits()?;
        let never_seen = self.recipes().is_none();
        let probe = self.settings.probe.clone().or_else(Probe::this_executable).filter(|_| never_seen);
        if let Some(probe) = probe.as_ref().filter(|_| !library::is_open(&self.digest)) {
            // What it objects to is an error here too, with a kind.
            self.try_in(probe)?;
        }
        let opened = library::open(self)?;
        let backend = crash::during(&self.subject(), "", "start", || opened.library.start(host))?;
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
    package: Option<Arc<Package>>,
    file: File,
}

impl Candidate {
    /// Looks into the file at `path`.
    pub(crate) fn look(path: &Path) -> Result<Self, Refusal> {
        let package = Package::of(path)?.map(Arc::new);
        let (path, file, manifest) = look(path)?;
        if let Some(package) = &package {
            package.sidecar.fits(&manifest)?;
        }
        Ok(Self { path, manifest, package, file })
    }

    /// Its name, and why this fp8flow cannot load it, if so.
    pub(crate) fn mismatch(&self) -> Option<(&str, Mismatch)> {
        self.manifest.check().err().map(|mismatch| (self.manifest.name.as_str(), mismatch))
    }

    /// Takes the digest, and holds it against the sidecar's where there is one.
    pub(crate) fn digest(mut self, place: &Place, settings: &Arc<Settings>) -> Result<Found, Refusal> {
        let stamp = Stamp::of(&self.file.metadata().map_err(NotAPlugin::from)?);
        std::io::Seek::rewind(&mut self.file).map_err(NotAPlugin::from)?;
        let digest = Digest::of(&self.file).map_err(NotAPlugin::from)?;
        if let Some(package) = &self.package {
            let stated = package.sidecar.library.blake3;
            if stated != digest {
                return Err(Refusal::Altered { plugin: self.manifest.name, stated, found: digest });
            }
            package.sidecar.has_bytes(stamp.bytes)?;
        }
        Ok(Found {
            digest,
            path: self.path,
            place: place.clone(),
            manifest: self.manifest,
            package: self.package,
            stamp,
            settings: settings.clone(),
        })
    }
}

/// The file at `path` without links, opened, and what it says of itself.
fn look(path: &Path) -> Result<(PathBuf, File, Manifest), NotAPlugin> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(NotAPlugin::NotAFile);
    }
    let file = File::open(path)?;
    let manifest = crate::elf::read_manifest(&file)?;
    Ok((path.canonicalize()?, file, manifest))
}

/// Why a file or a package is not taken, before it is known who asks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    NotAPlugin(#[from] NotAPlugin),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(
        "the library was altered: its digest is {found}, and the sidecar says {stated}; install it again"
    )]
    Altered { plugin: String, stated: Digest, found: Digest },
}

impl Refusal {
    /// Whether the file is healthy, and simply something else.
    pub(crate) fn is_something_else(&self) -> bool {
        matches!(self, Self::NotAPlugin(NotAPlugin::NoManifest))
    }

    /// Whether a sidecar is the reason.
    pub(crate) fn is_of_a_package(&self) -> bool {
        !matches!(self, Self::NotAPlugin(_))
    }

    /// The error about what is at `path`.
    pub(crate) fn of(self, path: PathBuf) -> HostError {
        match self {
            Self::NotAPlugin(source) => HostError::NotAPlugin { path, source },
            Self::Package(error) => error.into(),
            Self::Altered { plugin, stated, found } => {
                HostError::Altered { plugin, path, stated: Box::new(stated), found: Box::new(found) }
            }
        }
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of its bytes or of its facts: unlike the time of the last write it cannot be set back.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
