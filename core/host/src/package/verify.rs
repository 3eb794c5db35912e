//! What is installed, looked at once more.

use std::path::{Path, PathBuf};

use crate::{Digest, HostError, Search};

/// What has come of looking at a plugin.
#[derive(Debug)]
pub struct Verdict {
    /// Its name, or what was asked for.
    pub name: String,
    /// Its library, or what is damaged; none where nothing was found.
    pub path: Option<PathBuf>,
    /// Its version, where that could be told.
    pub version: Option<String>,
    /// The digest of its library, where that could be told.
    pub digest: Option<Digest>,
    /// Whether a sidecar holds it to that digest.
    pub held: bool,
    /// What is wrong with it.
    pub problem: Option<HostError>,
}

/// Looks at the plugins that `names` name, or, without any, at all in the user's folder `folder`: digest against sidecar,
/// sidecar against manifest, the handshake, and a child process that opens and starts it.
pub fn verify(names: &[String], search: &Search, folder: &Path) -> Vec<Verdict> {
    if names.is_empty() {
        return search.in_folder(folder).into_iter().map(|(path, found)| judge(path, found)).collect();
    }
    let look = |name: &String| match search.find(name) {
        Err(problem) => Verdict { name: name.clone(), ..nothing(problem) },
        found => judge(PathBuf::from(name), found),
    };
    names.iter().map(look).collect()
}

fn judge(path: PathBuf, found: Result<crate::Found, HostError>) -> Verdict {
    let found = match found {
        Ok(found) => found,
        Err(problem) => {
            let name = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
            return Verdict { name, path: Some(path), ..nothing(problem) };
        }
    };
    let problem = found.fits().and_then(|()| found.examine()).err();
    Verdict {
        name: found.name().to_owned(),
        path: Some(found.path.clone()),
        version: Some(found.manifest.version.clone()),
        digest: Some(found.digest),
        held: found.package.is_some(),
        problem,
    }
}

fn nothing(problem: HostError) -> Verdict {
    Verdict {
        name: String::new(),
        path: None,
        version: None,
        digest: None,
        held: false,
        problem: Some(problem),
    }
}
