//! A plugin that was installed, and another one in its place: what is pinned is noticed, and nothing is there by half.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use fp8flow_kernels::philox::Philox;

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

#[test]
fn an_installation_that_is_killed_leaves_the_old_one_or_the_new_one() {
    let bench = Bench::tiny();
    let began = Instant::now();
    assert_eq!(install(&bench, 1).code, Some(0));
    let whole = began.elapsed();
    let plugins = bench.path("data-home/fp8flow/plugins");
    let libraries = [1, 2].map(|more| build(&bench, more));
    let random = Philox::new(1, "installations");
    let (mut killed, mut seen) = (0, [0; 2]);
    for round in 0..24 {
        let library = libraries[(round % 2) as usize].to_str().unwrap();
        let mut child = bench
            .command(&["plugin", "install", library, "--replace"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(whole.mul_f64(1.1 * random.below(0, round, 1 << 32) as f64 / 2_f64.powi(32)));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        // What is hidden is no plugin, and is swept out by the next installation.
        let entries = fs::read_dir(&plugins).unwrap().map(|entry| entry.unwrap().file_name());
        let entries: Vec<_> = entries.filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
        assert_eq!(entries, ["torchao-rowwise"], "round {round}");
        let files = fs::read_dir(plugins.join("torchao-rowwise")).unwrap().count();
        assert_eq!(files, 2, "round {round}");
        let size = fs::metadata(plugins.join("torchao-rowwise/libtorchao_rowwise.so")).unwrap().len();
        let place = libraries.iter().position(|library| fs::metadata(library).unwrap().len() == size);
        seen[place.expect("one of the two")] += 1;
        let verified = bench.fp8flow(&["plugin", "verify"]);
        assert_eq!(verified.code, Some(0), "round {round}: {}", verified.all());
    }
    println!("{killed} of 24 killed; the one was there {} times, the other {} times", seen[0], seen[1]);
    assert_eq!(install(&bench, 1).code, Some(0));
    let left = fs::read_dir(&plugins).unwrap().count();
    assert_eq!(left, 2, "the plugin and the lock");
}
