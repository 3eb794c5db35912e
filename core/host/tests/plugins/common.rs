//! What the tests share: the search beside the test's executable, where Cargo puts the plugins' libraries.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use fp8flow_host::{Found, Origin, Place, Plugin, Pool, Search, Services, check_options};
use fp8flow_kernels::Isa;
use fp8flow_sdk::{Host, Recipe};

/// The engine's own host, with two threads.
pub(crate) fn host() -> Host {
    let pool = Arc::new(Pool::new(2).unwrap());
    Services::new(Isa::best(), pool, Arc::new(AtomicBool::new(false))).host()
}

/// Where the libraries of the test plugins lie.
pub(crate) fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A search in one folder or file.
pub(crate) fn search(path: PathBuf) -> Search {
    Search::in_places(vec![Place { origin: Origin::CommandLine, path }])
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
