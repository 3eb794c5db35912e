//! A plugin that was installed, and another one in its place: what is pinned is noticed.

use std::fs;
use std::path::PathBuf;

use crate::program::{Bench, Ended};

/// The library of a plugin, as Cargo has built it, with so many more bytes: another file, and the same arithmetic.
fn build(bench: &Bench, more: usize) -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut bytes = fs::read(folder.join("libtorchao_rowwise.so")).unwrap();
    bytes.resize(bytes.len() + more, 0);
    bench.write(&format!("build-{more}/libtorchao_rowwise.so"), bytes)
}

fn install(bench: &Bench, more: usize) -> Ended {
    let library = build(bench, more);
    bench.fp8flow(&["plugin", "install", library.to_str().unwrap(), "--replace"])
}

#[test]
fn a_plugin_that_was_replaced_stops_a_run_that_is_held_to_the_lock() {
    let bench = Bench::tiny();
    assert_eq!(install(&bench, 1).code, Some(0));
    let first = bench.run(&[]);
    assert_eq!(first.code, Some(0), "{}", first.all());
    let lock = bench.fp8flow(&["lock", "workflow.toml"]);
    assert_eq!(lock.code, Some(0), "{}", lock.all());
    let digest = |bench: &Bench| {
        let shown = bench.fp8flow(&["plugin", "show", "torchao-rowwise", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
        assert!(shown["path"].as_str().unwrap().contains("data-home/fp8flow/plugins/torchao-rowwise/"));
        shown["digest"].as_str().unwrap().to_owned()
    };
    let pinned = digest(&bench);
    assert!(fs::read_to_string(bench.path("workflow.lock")).unwrap().contains(&pinned), "the installed one");
    assert_eq!(bench.run(&["--locked"]).code, Some(0));

    let replaced = install(&bench, 2);
    assert!(replaced.out.contains("is installed in place of"), "{}", replaced.all());
    let now = digest(&bench);
    let refused = bench.run(&["--locked"]);
    assert_eq!(refused.code, Some(5), "{}", refused.all());
    for words in ["torchao-rowwise", &now[..12], &pinned[..12]] {
        assert!(refused.err.contains(words), "no {words:?} in\n{}", refused.err);
    }
    // The one that was pinned is welcome again.
    assert_eq!(install(&bench, 1).code, Some(0));
    let again = bench.run(&["--locked"]);
    assert_eq!(again.code, Some(0), "{}", again.all());

    // Another file in its place without an installation is no plugin at all.
    let library = bench.path("data-home/fp8flow/plugins/torchao-rowwise/libtorchao_rowwise.so");
    fs::copy(build(&bench, 2), &library).unwrap();
    for arguments in [&[][..], &["--locked"]] {
        let refused = bench.run(arguments);
        assert_eq!(refused.code, Some(69), "{}", refused.all());
        assert!(refused.err.contains("plugin `torchao-rowwise`"), "{}", refused.err);
        assert!(refused.err.contains("was altered"), "{}", refused.err);
    }
}
