//! Why a package cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::SIDECAR;

/// What is wrong with a package, beside another digest, which is [`crate::HostError::Altered`].
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The sidecar is not one.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// The character of that line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The sidecar cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The library is no file of its own.
    #[error("{} is a link: a package holds its library itself", .path.display())]
    Link {
        /// The library.
        path: PathBuf,
    },
    /// The sidecar says of the library what the library does not say of itself.
    #[error(
        "{SIDECAR} has {key} = {sidecar}, and the library says {library}; get the package again, or make it again with \
         `fp8flow plugin pack`"
    )]
    Contradiction {
        /// The key.
        key: &'static str,
        /// What the sidecar says.
        sidecar: String,
        /// What the library says.
        library: String,
    },
    /// A folder where a package was expected.
    #[error("{} is no package: there is no {SIDECAR} in it", .path.display())]
    NoSidecar {
        /// The folder.
        path: PathBuf,
    },
    /// Its name could not be that of a folder.
    #[error("{0}")]
    Name(String),
    /// Something is where the package would be.
    #[error("{} is there already: remove it, or name another folder with --out", .0.display())]
    Exists(PathBuf),
    /// A plugin of this name is there already.
    #[error("{} has `{name}` {version} already, which is another one; `--replace` puts this one in its place", .path.display())]
    Installed {
        /// The plugin's name.
        name: String,
        /// Where it is.
        path: PathBuf,
        /// The version that is there.
        version: String,
    },
    /// What is in the way was not put there by an installation.
    #[error("{} is in the way, and no package: move it elsewhere, or `fp8flow plugin remove {name}` if it is the plugin itself", .path.display())]
    InTheWay {
        /// The plugin's name.
        name: String,
        /// What is there.
        path: PathBuf,
    },
    /// The user's folder has no such plugin.
    #[error("`{name}` is not installed in {}{}", .folder.display(), where_else(.elsewhere.as_ref()))]
    NotInstalled {
        /// What was asked for.
        name: String,
        /// The user's folder.
        folder: PathBuf,
        /// Where it is instead, and who named that place.
        elsewhere: Option<(PathBuf, String)>,
    },
    /// Nowhere to install into.
    #[error("there is no folder for plugins of the user's: neither HOME nor XDG_DATA_HOME is set")]
    NoFolder,
    /// A file cannot be written, renamed or removed.
    #[error("{}: cannot {what}: {source}", .path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PackageError {
    /// The error of doing `what` to `path`.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The same failure where `to` stands for the folder `from`.
    pub(super) fn moved(self, from: &Path, to: &Path) -> Self {
        match self {
            Self::Io { what, path, source } => {
                let path = match path.strip_prefix(from) {
                    Ok(rest) => to.join(rest),
                    Err(_) => path,
                };
                Self::Io { what, path, source }
            }
            other => other,
        }
    }
}

fn where_else(place: Option<&(PathBuf, String)>) -> String {
    match place {
        None => "; `fp8flow plugin list` shows what there is".into(),
        Some((path, origin)) => format!(
            ", but found in {} ({origin}), which `plugin remove` leaves alone: delete that file yourself, or take its place \
             out of those that are searched",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_of_the_folder_that_was_meant() {
        let failure = |path: &str| PackageError::io("write", path)(io::ErrorKind::StorageFull.into());
        let moved = |path| failure(path).moved(Path::new("p/.aside-1"), Path::new("p/rows")).to_string();
        assert!(moved("p/.aside-1/librows.so").starts_with("p/rows/librows.so: cannot write: "));
        assert!(moved("given/librows.so").starts_with("given/librows.so: cannot write: "));
    }
}
