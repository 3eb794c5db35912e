//! Files that a stage has read outside the run: what they held, so that a later attempt can tell whether they still do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, digest};

/// A file up to this size is always read to compare it; a larger one only where its [`Stamp`] is another.
const READ_AGAIN: u64 = 64 << 20;

/// A place that a stage has read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outside {
    /// Within the workflow's folder, or absolute.
    pub(crate) path: PathBuf,
    /// What was there; `None` for nothing.
    pub(crate) found: Option<Found>,
}

/// A file as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) blake3: String,
    stamp: Stamp,
}

/// What the file system says of a file. Where it says the same again, the file was not written to: the time of the last
/// change of the node cannot be set by programs that copy times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    node: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            node: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Files that a stage is about to read, as far as its keys tell, and what the file system says of them before that.
pub(crate) struct Watch(BTreeMap<PathBuf, Option<Stamp>>);

impl Watch {
    /// Watches the files among `paths`, and those that lie in the folders among them.
    pub(crate) fn over(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut stamps = BTreeMap::new();
        for path in paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)) {
            let inner = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            stamps.extend(inner.chain([path.clone()]).map(|path| (path.clone(), stamp(&path))));
        }
        Self(stamps)
    }

    /// The first of the files that were `read` which is not what it was.
    pub(crate) fn changed<'a>(&self, read: &'a [PathBuf]) -> Option<&'a Path> {
        let changed = |path: &Path| {
            let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            self.0.get(&full).is_some_and(|before| *before != stamp(&full))
        };
        read.iter().map(PathBuf::as_path).find(|path| changed(path))
    }
}

/// What the file system says of a file; `None` where there is none.
fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| Stamp::of(&metadata))
}

/// What is at `paths`, each named once; `folder` is the workflow's.
pub(crate) fn look(folder: &Path, paths: &[PathBuf]) -> Result<Vec<Outside>, Error> {
    let mut outside = Vec::new();
    for path in paths {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        let found = Found::at(&path).map_err(Error::io("read", &path))?;
        let path = path.strip_prefix(folder).map_or_else(|_| path.clone(), Path::to_owned);
        outside.push(Outside { path, found });
    }
    outside.sort_by(|a, b| a.path.cmp(&b.path));
    outside.dedup_by(|a, b| a.path == b.path);
    Ok(outside)
}

impl Found {
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let metadata = match fs::metadata(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            metadata => metadata?,
        };
        let (size, blake3) = digest::of_file(path)?;
        Ok(Some(Self { size, blake3, stamp: Stamp::of(&metadata) }))
    }
}

impl Outside {
    /// In words, how the place differs from what it was, if it does; `folder` is the workflow's.
    pub(crate) fn difference(&self, folder: &Path) -> Option<String> {
        let (path, name) = (folder.join(&self.path), self.path.display());
        let Some(before) = &self.found else {
            return path.exists().then(|| format!("{name} was not there before"));
        };
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some(format!("{name} is no longer there"));
            }
            Err(error) => return Some(format!("{name}: {error}")),
            Ok(metadata) => metadata,
        };
        if metadata.len() == before.size {
            if metadata.len() > READ_AGAIN && Stamp::of(&metadata) == before.stamp {
                return None;
            }
            match digest::of_file(&path) {
                Ok((_, blake3)) if blake3 == before.blake3 => return None,
                Ok(_) => {}
                Err(error) => return Some(format!("{name}: {error}")),
            }
        }
        Some(format!("{name} has changed since"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// The file `name` of a folder of its own, as it was looked at.
    fn looked(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Outside) {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(name), bytes).expect("written");
        let mut found = look(folder.path(), &vec![folder.path().join(name); 2]).expect("it can be looked at");
        assert_eq!((found.len(), &*found[0].path), (1, Path::new(name)));
        let outside = found.remove(0);
        (folder, outside)
    }

    #[test]
    fn contents_count_and_times_do_not() {
        let (folder, outside) = looked("data.json", b"[1]");
        let path = folder.path().join("data.json");
        assert_eq!(outside.difference(folder.path()), None);
        fs::rename(&path, folder.path().join("old")).expect("moved");
        fs::write(&path, b"[1]").expect("written");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&path).and_then(|file| file.set_modified(long_ago)).expect("set");
        assert_eq!(outside.difference(folder.path()), None);
        for other in [&b"[2]"[..], b"[1] "] {
            fs::write(&path, other).expect("written");
            assert_eq!(outside.difference(folder.path()).as_deref(), Some("data.json has changed since"));
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(outside.difference(folder.path()).as_deref(), Some("data.json is no longer there"));
    }

    #[test]
    fn a_file_that_appears_where_none_was_is_a_difference() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat_template.jinja");
        let outside = look(folder.path(), std::slice::from_ref(&path)).expect("nothing is there").remove(0);
        assert_eq!(outside.difference(folder.path()), None);
        fs::write(path, "").expect("written");
        let said = outside.difference(folder.path());
        assert_eq!(said.as_deref(), Some("chat_template.jinja was not there before"));
    }

    #[test]
    fn a_file_that_is_replaced_or_written_to_meanwhile_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let [data, config, other] =
            ["data.json", "model/config.json", "other"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("model")).expect("made");
        for path in [&data, &config, &other] {
            fs::write(path, "1").expect("written");
        }
        let watch = || Watch::over([data.clone(), folder.path().join("model")]);
        let read = [data.clone(), config.clone(), other.clone()];
        let (untouched, replaced, written) = (watch(), watch(), watch());
        assert_eq!(untouched.changed(&read), None);
        fs::write(&other, "2").expect("written");
        assert_eq!(untouched.changed(&read), None, "nobody watches it");
        fs::write(folder.path().join("new"), "1").expect("written");
        fs::rename(folder.path().join("new"), &data).expect("replaced by the same bytes");
        assert_eq!(replaced.changed(&read), Some(&*data));
        fs::write(&config, "22").expect("written");
        assert_eq!(written.changed(&read[1..]), Some(&*config));
    }

    #[test]
    fn a_large_file_is_read_again_only_where_its_stamp_is_another() {
        let (folder, mut outside) = looked("model.safetensors", b"");
        let path = folder.path().join("model.safetensors");
        File::options().write(true).open(&path).and_then(|file| file.set_len(READ_AGAIN + 1)).expect("set");
        let metadata = fs::metadata(&path).expect("there");
        let (size, blake3) = (READ_AGAIN + 1, "not what it holds".to_owned());
        outside.found = Some(Found { size, blake3, stamp: Stamp::of(&metadata) });
        assert_eq!(outside.difference(folder.path()), None, "the stamp is the same");
        // A copy that kept the time of the last modification.
        let modified = metadata.modified().expect("known");
        File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("set");
        let said = outside.difference(folder.path());
        assert_eq!(said.as_deref(), Some("model.safetensors has changed since"));
    }
}
