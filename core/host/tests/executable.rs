//! An executable as fp8flow is one: it probes with itself, and finds plugins by the environment, in the user's folder and
//! beside itself, from any folder.
//!
//! This one has no test harness. Started without arguments it starts itself again, in several settings, with the name of a
//! plugin to open.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fp8flow_host::{Pool, Search, Services};
use tempfile::TempDir;

fn main() {
    fp8flow_host::probe::run_if_child();
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.as_slice() {
        [_, open, name] if open == "--open" => say_what_is_opened(name),
        _ => {
            a_crash_is_a_message_and_success_is_remembered();
            places_come_in_their_order();
            println!("test executable ... ok");
        }
    }
}

fn say_what_is_opened(name: &str) {
    let pool = Arc::new(Pool::new(2).unwrap());
    let host = Services::new(fp8flow_kernels::Isa::best(), pool, Arc::default()).host();
    match Search::new(&[], &[]).find(name).and_then(|found| found.open(&host)) {
        Ok(plugin) => println!("opened {}", plugin.found().path.display()),
        Err(error) => println!("{error}"),
    }
}

/// A user with a home and a working folder that have nothing to do with this executable.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What this executable says when it opens `name`.
    fn open(&self, name: &str, environment: &[(&str, &Path)]) -> String {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--open", name])
            .current_dir(self.0.path())
            .env_remove("FP8FLOW_PLUGIN_PATH")
            .env("HOME", self.0.path())
            .env("XDG_CACHE_HOME", self.folder("cache"))
            .env("XDG_DATA_HOME", self.folder("data"))
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn remembered(&self) -> usize {
        std::fs::read_dir(self.folder("cache/fp8flow/plugins")).map_or(0, Iterator::count)
    }
}

fn beside(file: &str) -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().join(file).canonicalize().unwrap()
}

fn a_crash_is_a_message_and_success_is_remembered() {
    let user = User::new();
    for (crash, signal) in [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("open", "SIGABRT")] {
        let said = user.open("crashing", &[("FP8FLOW_TEST_CRASH", Path::new(crash))]);
        assert!(said.contains(&format!("is not loaded, because it crashed with {signal}")), "{said}");
        assert_eq!(user.remembered(), 0);
    }
    let opened = format!("opened {}", beside("libcrashing.so").display());
    assert_eq!(user.open("crashing", &[]), opened);
    assert_eq!(user.remembered(), 1);
    // Seen once, it is not tried in a process of its own again: its own error comes back.
    let said = user.open("crashing", &[("FP8FLOW_TEST_CRASH", Path::new("error"))]);
    assert!(said.starts_with("crashing: start: told to fail"), "{said}");
    assert_eq!(
        user.open("torchao-rowwise", &[]),
        format!("opened {}", beside("libtorchao_rowwise.so").display())
    );
    assert_eq!(user.remembered(), 2);
}

fn places_come_in_their_order() {
    let user = User::new();
    let copy = |folder: PathBuf| {
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libmine.so");
        std::fs::copy(beside("libfaulty.so"), &file).unwrap();
        file.canonicalize().unwrap()
    };
    let own = copy(user.folder("data/fp8flow/plugins"));
    assert_eq!(user.open("faulty", &[]), format!("opened {}", own.display()));
    let named = copy(user.folder("named"));
    for path in ["/nowhere:named", "named/libmine.so", ":named:"] {
        let said = user.open("faulty", &[("FP8FLOW_PLUGIN_PATH", Path::new(path))]);
        assert_eq!(said, format!("opened {}", named.display()), "{path}");
    }
    assert_eq!(user.open("./named/libmine.so", &[]), format!("opened {}", named.display()));
}
