//! `checkpoint.export`: where an export may go, known before anything runs.

use std::os::unix::fs::symlink;

use crate::bench::Bench;

const MODEL: &str = "[backend]\nplugin = \"none\"\n\n[stages.model]\nuses = \"model.init\"\n";

fn exports(folders: &[&str]) -> String {
    let export = |(i, dir)| {
        format!("\n[stages.export{i}]\nuses = \"checkpoint.export\"\nmodel = \"model\"\ndir = \"{dir}\"\n")
    };
    MODEL.to_owned() + &folders.iter().enumerate().map(export).collect::<String>()
}

#[test]
fn two_exports_never_take_each_others_place() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("real")).unwrap();
    symlink(bench.path("real"), bench.path("link")).unwrap();
    for [first, second] in [
        ["out", "out"],
        ["out", "./out"],
        ["out", "sub/../out"],
        ["real", "link"],
        ["out", "out/inner"],
        ["a/b", "a"],
    ] {
        let said = bench.plan_of(&exports(&[first, second]), None).unwrap_err().to_string();
        assert!(said.contains("the stage `export0` exports into "), "{first}, {second}: {said}");
        assert!(said.contains("w.toml:15:7"), "the second has the place: {said}");
    }
    bench.plan_of(&exports(&["out", "out2", "sub/out", "link"]), None).unwrap();
    assert!(!bench.path("out").exists() && !bench.path("sub").exists(), "nothing is made to look");
}

#[test]
fn an_export_keeps_away_from_the_runs() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("elsewhere/a-run/train")).unwrap();
    std::fs::write(bench.path("elsewhere/a-run/run.json"), "{}").unwrap();
    let other = bench.path("other/runs");
    for (dir, runs) in [
        ("runs", None),
        ("runs/latest/out", None),
        ("elsewhere/a-run/train/out", None),
        ("other", Some(&*other)),
        ("other/runs/out", Some(&*other)),
    ] {
        let said = bench.plan_of(&exports(&[dir]), runs).unwrap_err().to_string();
        assert!(
            said.contains("is no place beside the runs") && said.contains("w.toml:10:7"),
            "{dir}: {said}"
        );
    }
    bench.plan_of(&exports(&["runs/out"]), Some(&other)).unwrap();
}

#[test]
fn a_place_that_cannot_be_taken_is_said_before_anything_runs() {
    let bench = Bench::new();
    std::fs::write(bench.path("file"), "").unwrap();
    symlink(bench.path("nothing"), bench.path("dangling")).unwrap();
    for (dir, words) in [
        ("file", "is no folder"),
        ("file/out", "is no folder"),
        ("dangling", "is a link to nothing"),
        ("/", "give a folder with a name"),
        (".", "which no earlier export wrote"),
    ] {
        let said = bench.plan_of(&exports(&[dir]), None).unwrap_err().to_string();
        assert!(said.contains(words) && said.contains("w.toml:10:7"), "{dir}: {said}");
    }
}
