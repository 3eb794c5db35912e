//! `runs/.store`: results of stages by what they were made from, and their files by digest.
//!
//! `objects/ab/cd…` are files under their blake3; `entries/KEY/RESULT.json` are manifests under the key of what the stage
//! was begun with. A file of a run and its object are one file with two names (a copy where the file system has no
//! links), and read-only: whoever must write to a result takes the link apart first ([`detach`]). Files outside the
//! run, which belong to the user, are copied.
//!
//! What is there is whole: an object is linked, or written aside and renamed; an entry follows its objects. Nothing is
//! believed for that reason: every digest is checked before a result is used.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::manifest::{Manifest, Output};
use crate::{Error, atomic, manifest};

/// Its name in the folder of runs.
pub(crate) const FOLDER: &str = ".store";

/// The store of a folder of runs. It need not be there to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

/// Held while files come or go: shared by those who add and read, alone by who sweeps.
pub(crate) struct Hold {
    _file: File,
}

impl Store {
    pub(crate) fn of(runs: &Path) -> Self {
        Self { folder: runs.join(FOLDER) }
    }

    /// Makes its folders, and removes what killed processes left aside.
    pub(crate) fn open(&self) -> Result<(), Error> {
        for name in ["objects", "entries", "aside"] {
            let path = self.folder.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        if let Some(_alone) = self.try_alone() {
            for left in list(&self.folder.join("aside")) {
                let _ = fs::remove_file(left);
            }
        }
        Ok(())
    }

    /// Keeps sweepers away.
    pub(crate) fn share(&self) -> Result<Hold, Error> {
        let file = self.lock_file()?;
        file.lock_shared().map_err(Error::io("lock", &self.folder))?;
        Ok(Hold { _file: file })
    }

    /// Keeps everybody away, if nobody is there.
    pub(crate) fn try_alone(&self) -> Option<Hold> {
        let file = self.lock_file().ok()?;
        file.try_lock().ok().map(|()| Hold { _file: file })
    }

    /// Keeps everybody away, once they have left.
    pub(crate) fn alone(&self) -> Result<Hold, Error> {
        let file = self.lock_file()?;
        file.lock().map_err(Error::io("lock", &self.folder))?;
        Ok(Hold { _file: file })
    }

    fn lock_file(&self) -> Result<File, Error> {
        let path = self.folder.join("LOCK");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        open.map_err(Error::io("open", &path))
    }

    /// The place of the object with this digest.
    pub(crate) fn object(&self, blake3: &str) -> PathBuf {
        let (head, tail) = blake3.split_at_checked(2).unwrap_or(("", blake3));
        self.folder.join("objects").join(head).join(tail)
    }

    /// The place of the entry for `manifest`.
    pub(crate) fn entry(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join("entries").join(manifest.begun.key()).join(format!("{}.json", manifest.result))
    }

    /// What was made from the same, newest first.
    pub(crate) fn made_from(&self, key: &str) -> Vec<Manifest> {
        let mut found: Vec<Manifest> =
            list(&self.folder.join("entries").join(key)).iter().filter_map(|path| understood(path)).collect();
        found.sort_by(|a, b| b.finished.cmp(&a.finished));
        found
    }

    /// Every entry with its place.
    pub(crate) fn entries(&self) -> Vec<(PathBuf, Option<Manifest>)> {
        let keys = list(&self.folder.join("entries"));
        let paths = keys.iter().flat_map(|key| list(key));
        paths.map(|path| (path.clone(), understood(&path))).collect()
    }

    /// Every object with its digest.
    pub(crate) fn objects(&self) -> Vec<(PathBuf, String)> {
        let heads = list(&self.folder.join("objects"));
        let paths = heads.iter().flat_map(|head| list(head).into_iter().map(move |path| (head, path)));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        paths.map(|(head, path)| (path.clone(), name(head) + &name(&path))).collect()
    }

    /// Takes up a result that lies in `folder`.
    pub(crate) fn keep(&self, manifest: &Manifest, folder: &Path) -> Result<(), Error> {
        self.open()?;
        let _hold = self.share()?;
        for output in &manifest.outputs {
            self.take(output, &folder.join(&output.path))?;
        }
        let path = self.entry(manifest);
        let mut bytes = serde_json::to_vec_pretty(manifest)
            .map_err(io::Error::other)
            .map_err(Error::io("write", &path))?;
        bytes.push(b'\n');
        self.place(&path, |file| file.write_all(&bytes))
    }

    fn take(&self, output: &Output, file: &Path) -> Result<(), Error> {
        let object = self.object(&output.blake3);
        match fs::metadata(&object) {
            Ok(metadata) if metadata.len() == output.size => return Ok(()),
            Ok(_) => fs::remove_file(&object).map_err(Error::io("remove", &object))?,
            Err(_) => {}
        }
        if !output.is_outside() {
            make_parent(&object)?;
            match fs::hard_link(file, &object) {
                Ok(()) => return protect(&object).map_err(Error::io("protect", &object)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(_) => {}
            }
        }
        self.place(&object, |to| io::copy(&mut File::open(file)?, to).map(drop))?;
        protect(&object).map_err(Error::io("protect", &object))
    }

    /// Writes the file `path` aside, syncs it and gives it its name.
    fn place(&self, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let aside = self.folder.join("aside").join(name);
        make_parent(path)?;
        let written = File::create(&aside).and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()?;
            fs::rename(&aside, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written.map_err(Error::io("write", path))?;
        atomic::sync_parent(path).map_err(Error::io("sync", path))
    }

    /// The first object of `manifest` that is not what it should be, and in words how.
    pub(crate) fn damage(&self, manifest: &Manifest) -> Option<(PathBuf, String)> {
        manifest.outputs.iter().find_map(|output| {
            let object = self.object(&output.blake3);
            let damage = output.damage(&object)?;
            Some((object, damage))
        })
    }

    /// Removes a result whose object is damaged.
    pub(crate) fn forget(&self, manifest: &Manifest, object: &Path) {
        let Ok(_hold) = self.share() else { return };
        let _ = fs::remove_file(self.entry(manifest));
        let _ = fs::remove_file(object);
    }

    /// Makes `output` appear as `to`: the object under another name, or a copy that may be written to.
    pub(crate) fn lend(&self, output: &Output, to: &Path) -> Result<(), Error> {
        make_parent(to)?;
        let object = self.object(&output.blake3);
        if output.is_outside() {
            return self.copy(output, to);
        }
        if fs::hard_link(&object, to).is_ok() {
            return Ok(());
        }
        self.copy(output, to)?;
        protect(to).map_err(Error::io("protect", to))
    }

    /// Writes `output` as `to`: a file of its own.
    pub(crate) fn copy(&self, output: &Output, to: &Path) -> Result<(), Error> {
        make_parent(to)?;
        let copy = || {
            let mut file = File::create_new(to)?;
            io::copy(&mut File::open(self.object(&output.blake3))?, &mut file)?;
            file.sync_all()
        };
        copy().map_err(Error::io("write", to))
    }
}

/// Makes the files of a result in `folder` files of their own that may be written to.
pub(crate) fn detach(manifest: &Manifest, folder: &Path) -> Result<(), Error> {
    for output in manifest.outputs.iter().filter(|output| !output.is_outside()) {
        let path = folder.join(&output.path);
        let aside =
            path.with_file_name(format!(".{}.aside", path.file_name().unwrap_or_default().to_string_lossy()));
        let copy = || {
            io::copy(&mut File::open(&path)?, &mut File::create(&aside)?)?;
            fs::rename(&aside, &path)
        };
        match copy() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("copy", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A manifest that can be trusted as far as it goes: of this format, not edited, its files within their folder.
fn understood(path: &Path) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let inside = |output: &Output| {
        output.is_outside() || output.path.components().all(|part| matches!(part, Component::Normal(_)))
    };
    let sound = manifest.format == manifest::FORMAT
        && manifest.matches_itself()
        && manifest.outputs.iter().all(|output| inside(output) && is_digest(&output.blake3));
    sound.then_some(manifest)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn list(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))
}

/// A result is not written to again.
fn protect(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions)
}
