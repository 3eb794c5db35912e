//! A plugin that was built with an SDK as it was published runs in the fp8flow of today.
//!
//! The SDK is taken from the history of this repository and the plugin is built there, without optimisation of its own
//! code; nothing built is stored. A source tree without its history skips that, and says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{Bench, Ended};

/// Published versions of the SDK: each must run until a new generation of it says otherwise.
const PUBLISHED: [(&str, &str); 1] = [("0.1.0", "c60ddd9ff71a1717c6f23ad55ceb35eb852c8f3f")];

/// The sources as they were at a commit; none where the history does not have it.
fn sources(commit: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("older").join(commit);
    if folder.join("Cargo.toml").exists() {
        return Some(folder);
    }
    let aside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .current_dir(root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let unpacked =
        Command::new("tar").arg("-x").current_dir(aside.path()).stdin(archive.stdout.take()?).status();
    if !archive.wait().ok()?.success() || !unpacked.ok()?.success() {
        return None;
    }
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    std::fs::rename(aside.keep(), &folder).unwrap();
    Some(folder)
}

/// The shipped plugin as it was then.
fn build(sources: &Path) -> PathBuf {
    // What it depends on is built once, with what the tests of the book build.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "torchao-rowwise", "--config", "profile.dev.opt-level=0"])
        .current_dir(sources)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/libtorchao_rowwise.so")
}

#[test]
fn plugins_of_published_sdks_still_run() {
    for (version, commit) in PUBLISHED {
        let Some(sources) = sources(commit) else {
            println!("skipped: this source tree has no history with the SDK {version}");
            continue;
        };
        let bench = Bench::new();
        let library = build(&sources);
        let shown: Ended =
            bench.command(&["plugin", "show", library.to_str().unwrap()]).output().unwrap().into();
        assert!(shown.all().contains(&format!("SDK       {version}")), "{}", shown.all());
        let expected = bench.run(&[]);
        assert_eq!(expected.code, Some(0), "{}", expected.all());
        let older = Bench::new();
        let ran = older.run(&["--plugin-path", library.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.all());
        // What tells of the run names the numerics that a plugin was built with.
        let computed = |bench: &Bench| {
            let result = bench.result();
            let told = |line: &&str| !line.starts_with("MANIFEST.json ") && !line.starts_with("state.json ");
            result.lines().filter(told).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(computed(&older), computed(&bench), "the SDK {version} gives other bits");
    }
}
