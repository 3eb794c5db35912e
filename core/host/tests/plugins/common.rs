//! What the tests share: the plugins that Cargo has built beside this executable, and changed copies of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use fp8flow_host::{Found, Origin, Place, Plugin, Pool, Search, Services, check_options};
use fp8flow_kernels::Isa;
use fp8flow_sdk::{Host, Recipe};
use tempfile::TempDir;

/// The engine's own host, with two threads.
pub(crate) fn host() -> Host {
    let pool = Arc::new(Pool::new(2).unwrap());
    Services::new(Isa::best(), pool, Arc::new(AtomicBool::new(false))).host()
}

/// Where the libraries of the test plugins lie.
pub(crate) fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

pub(crate) fn place(path: impl Into<PathBuf>) -> Place {
    Place { origin: Origin::CommandLine, path: path.into() }
}

/// A search in one folder or file.
pub(crate) fn search(path: impl Into<PathBuf>) -> Search {
    Search::in_places(vec![place(path)])
}

/// A plugin that Cargo has built. It is looked for once: a library with debug information is long to digest.
pub(crate) fn found(name: &str) -> Found {
    static FOUND: Mutex<Vec<Found>> = Mutex::new(Vec::new());
    let mut known = FOUND.lock().unwrap();
    if let Some(found) = known.iter().find(|found| found.name() == name) {
        return found.clone();
    }
    let found = search(built()).find(name).unwrap();
    known.push(found.clone());
    found
}

/// The same, started.
pub(crate) fn plugin(name: &str) -> Plugin {
    found(name).open(&host()).unwrap()
}

/// A recipe of it with its default options, some of them replaced.
pub(crate) fn recipe(plugin: &Plugin, name: &str, given: &[(&str, serde_json::Value)]) -> Box<dyn Recipe> {
    let given = given.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let options = check_options(plugin.recipe_info(name).unwrap(), &given).unwrap();
    plugin.recipe(name, &options).unwrap()
}

/// The bytes of a plugin's library.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(&found(name).path).unwrap()
}

/// A folder with changed copies of plugins in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        // A new file, not new contents: the old one may be a library that is open.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A copy of a plugin that is another file: its digest differs, and nothing else.
    pub(crate) fn copy(&self, plugin: &str, file: &str) -> PathBuf {
        let mut bytes = bytes(plugin);
        bytes.extend_from_slice(file.as_bytes());
        self.file(file, &bytes)
    }

    /// A copy of a plugin with one text in its manifest replaced by another of the same length.
    pub(crate) fn patched(&self, plugin: &str, from: &str, to: &str) -> PathBuf {
        assert_eq!(from.len(), to.len());
        let mut bytes = bytes(plugin);
        let manifest = manifest_start(&bytes).unwrap();
        let at = position(&bytes, from.as_bytes(), manifest).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        self.file("libpatched.so", &bytes)
    }
}

/// Where the manifest starts: its mark, followed by a length and an opening brace.
pub(crate) fn manifest_start(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = position(bytes, b"fp8flow-manifest", from) {
        if bytes.get(at + 20) == Some(&b'{') {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

pub(crate) fn position(bytes: &[u8], text: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(text.len()).position(|window| window == text).map(|at| from + at)
}
