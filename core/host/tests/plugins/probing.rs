//! Plugins that take their process with them are tried in a child process, once.

use std::time::{Duration, Instant};

use fp8flow_host::probe::{self, Probe, ProbeFailure};
use fp8flow_host::{Found, HostError, Search};

use crate::common::{Folder, host, search};

/// The child's side: this executable, told to run this test alone.
#[test]
fn as_child() {
    if std::env::var_os(probe::VARIABLE).is_some() {
        probe::run_if_child();
    }
}

/// A child in which the plugin `crashing` crashes as it is told.
pub(crate) fn probe(crash: &str) -> Probe {
    let crash = format!("FP8FLOW_TEST_CRASH={crash}");
    let executable = std::env::current_exe().unwrap();
    let arguments =
        [&crash, executable.to_str().unwrap(), "--exact", "probing::as_child", "--test-threads=1"];
    Probe::new("env", &arguments)
}

struct Setting {
    folder: Folder,
    cache: Folder,
}

impl Setting {
    fn new() -> Self {
        let setting = Self { folder: Folder::new(), cache: Folder::new() };
        setting
            .folder
            .copy("crashing", &format!("lib{}.so", setting.folder.path().file_name().unwrap().display()));
        setting
    }

    fn search(&self, probe: Probe) -> Search {
        search(self.folder.path()).with_cache(self.cache.path().into()).with_probe(probe)
    }

    fn found(&self, probe: Probe) -> Found {
        self.search(probe).find("crashing").unwrap()
    }

    fn failure(&self, probe: Probe) -> ProbeFailure {
        match self.found(probe).open(&host()).unwrap_err() {
            HostError::Probe { failure, .. } => *failure,
            other => panic!("expected the probe to fail: {other}"),
        }
    }
}

#[test]
fn a_plugin_that_crashes_costs_a_message() {
    let setting = Setting::new();
    for (crash, step, signal) in
        [("segfault", "start", "SIGSEGV"), ("abort", "start", "SIGABRT"), ("open", "open", "SIGABRT")]
    {
        let failure = setting.failure(probe(crash));
        let text = failure.to_string();
        assert!(matches!(failure, ProbeFailure::Crashed { .. }), "{crash}: {text}");
        assert!(text.contains(&format!("crashed with {signal}")), "{crash}: {text}");
        assert!(text.contains(&format!("in `{step}`")), "{crash}: {text}");
    }
    let error = setting.found(probe("segfault")).open(&host()).unwrap_err().to_string();
    assert!(error.starts_with("plugin `crashing` (/") && error.contains("is not loaded, because"), "{error}");
}

#[test]
fn a_plugin_that_exits_or_hangs_costs_a_message() {
    let setting = Setting::new();
    let failure = setting.failure(probe("exit"));
    assert!(matches!(failure, ProbeFailure::Exited { .. }), "{failure}");
    assert!(failure.to_string().contains("exit status: 3"), "{failure}");

    let started = Instant::now();
    let failure = setting.failure(probe("hang").with_timeout(Duration::from_secs(2)));
    assert!(matches!(failure, ProbeFailure::TimedOut { .. }), "{failure}");
    assert!(failure.to_string().contains("did not come back within 2 s"), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_probe_that_is_no_probe_lets_nothing_through() {
    let setting = Setting::new();
    let failure = setting.failure(Probe::new("true", &[]));
    assert!(matches!(failure, ProbeFailure::Exited { .. }), "{failure}");
    let failure = setting.failure(Probe::new("/does/not/exist", &[]));
    assert!(matches!(failure, ProbeFailure::Spawn(_)), "{failure}");
}

#[test]
fn failures_that_are_contained_are_not_the_probes_but_the_plugins() {
    // They happen again in the process that asked, where they are errors with a kind.
    for (crash, expected) in [
        ("panic", "Panicked: crashing: start: panicked: told to panic in start"),
        ("error", "Unsupported: crashing: start: told to fail"),
        ("recipes", "Panicked: crashing: recipes: panicked: told to panic in recipes"),
    ] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "probing::as_engine", "--nocapture"])
            .env("FP8FLOW_TEST_CRASH", crash)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(output.lines().any(|line| line == expected), "{crash}: {output}");
    }
}

/// The engine's side, in a process of its own whose environment tells the plugin to fail without a crash.
#[test]
fn as_engine() {
    let Ok(crash) = std::env::var("FP8FLOW_TEST_CRASH") else { return };
    let setting = Setting::new();
    match setting.found(probe(&crash)).open(&host()).unwrap_err() {
        HostError::Call(error) => println!("\n{:?}: {}", error.kind, error.message),
        other => panic!("expected the plugin's own error: {other}"),
    }
    assert_eq!(setting.found(probe(&crash)).recipes(), None, "a failure is not remembered as a success");
}

#[test]
fn what_survived_once_is_not_tried_again() {
    let setting = Setting::new();
    assert_eq!(setting.found(probe("none")).recipes(), None);
    setting.found(probe("none")).open(&host()).unwrap();
    let seen = setting.found(Probe::new("false", &[])).recipes().unwrap();
    assert_eq!(seen[0].name, "none", "a listing knows its recipes now");

    // Another process, which has not opened it yet, asks nobody either.
    let files: Vec<_> = std::fs::read_dir(setting.cache.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let file = files[0].as_ref().unwrap().path();
    assert!(file.ends_with(format!("{}.json", setting.found(probe("none")).digest)));

    // What is damaged, or was seen by another SDK, is as good as never seen.
    for text in ["{", "{\"sdk\":\"0.0.1\",\"recipes\":[]}", ""] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(setting.found(probe("none")).recipes(), None);
    }
}

#[test]
fn another_file_is_tried_anew_and_a_cache_that_cannot_be_written_is_no_error() {
    let setting = Setting::new();
    setting.found(probe("none")).open(&host()).unwrap();
    let changed = Folder::new();
    changed.copy("crashing", "libchanged.so");
    let nowhere = setting.folder.file("file", b"");
    let search = search(changed.path()).with_cache(nowhere.join("below a file"));
    let failure = search.clone().with_probe(probe("abort")).find("crashing").unwrap().open(&host());
    assert!(matches!(failure, Err(HostError::Probe { .. })), "{failure:?}");
    search.with_probe(probe("none")).find("crashing").unwrap().open(&host()).unwrap();
}
