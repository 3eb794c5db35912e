//! What stands around a run and is no part of its result: clocks, links, where it is started from, other processes.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::program::{Bench, Ended, quickstart};
use crate::reproducible::expected_of;

/// A run that was asked to stop after a checkpoint.
fn stopped(bench: &Bench) {
    let mut child = bench.start();
    let checkpoint = || {
        let runs = fs::read_dir(bench.path("runs")).into_iter().flatten().flatten();
        let runs = runs.filter(|run| !run.path().is_symlink());
        let steps =
            runs.flat_map(|run| fs::read_dir(run.path().join("train/checkpoints")).into_iter().flatten());
        let named = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("step-");
        steps.flatten().filter(|step| named(&step.file_name())).count()
    };
    while checkpoint() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "ended before its second checkpoint");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// More steps than are done before somebody looks.
fn long() -> Bench {
    Bench::new().with("steps = 4", "steps = 12")
}

fn each_file(folder: &Path, work: &impl Fn(&Path)) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_symlink() => {}
            kind if kind.is_dir() => each_file(&entry.path(), work),
            _ => work(&entry.path()),
        }
    }
}

#[test]
fn clocks_that_go_wrong_change_nothing() {
    let expected = expected_of(&long());
    let (past, future) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_hours(80 * 365 * 24));
    for time in [past, future] {
        let bench = long();
        stopped(&bench);
        let times = FileTimes::new().set_modified(time).set_accessed(time);
        each_file(bench.folder.path(), &|path| File::open(path).unwrap().set_times(times).unwrap());
        let ended = bench.run(&[]);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        assert_eq!(bench.result(), expected);
    }
    // Records of a run that began tomorrow and was last written yesterday.
    let bench = long();
    stopped(&bench);
    let path = bench.run_folder().join("run.json");
    let record = fs::read_to_string(&path).unwrap();
    let (head, tail) = record.split_once("\"started\": \"").unwrap();
    fs::write(&path, format!("{head}\"started\": \"2999{}", &tail[4..])).unwrap();
    assert_eq!(bench.fp8flow(&["status"]).code, Some(0));
    assert_eq!(bench.run(&[]).code, Some(0));
    assert_eq!(bench.result(), expected);
}

#[test]
fn what_has_no_end_is_refused_wherever_a_file_is_named() {
    let data = quickstart().display().to_string();
    for (from, to) in [
        (format!("{data}/dates.json"), "/dev/zero"),
        (format!("{data}/model/tokenizer.json"), "/dev/zero"),
        (format!("{data}/model/config.json"), "/dev/zero"),
        (format!("{data}/model/config.json"), "pipe"),
    ] {
        let bench = Bench::new().with(&from, to);
        assert!(Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
        let mut command = bench.command_under(&["timeout", "-s", "KILL", "20"], &["run", "workflow.toml"]);
        let ended: Ended = command.output().unwrap().into();
        assert!(matches!(ended.code, Some(3 | 74)), "{from} = {to}: {:?} {}", ended.code, ended.all());
        assert!(ended.err.contains("not a regular file"), "{}", ended.err);
    }
}

#[test]
fn links_and_relative_paths_lead_to_the_same_bytes() {
    let expected = expected_of(&Bench::tiny());
    let bench = Bench::tiny();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(bench.folder.path(), elsewhere.path().join("link")).unwrap();
    let ended = bench.command(&["run", "link/workflow.toml"]).current_dir(elsewhere.path()).status().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(bench.result(), expected);
    let bench = Bench::tiny();
    fs::create_dir(bench.path("deeper")).unwrap();
    let ended =
        bench.command(&["run", "../workflow.toml"]).current_dir(bench.path("deeper")).status().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(bench.result(), expected);
}

#[test]
fn of_two_processes_on_a_run_the_second_gives_up_or_waits_as_asked() {
    let bench = long();
    let expected = expected_of(&long());
    let mut first = bench.start();
    while !bench.path("runs/latest/train").exists() {
        assert!(first.try_wait().unwrap().is_none(), "ended before the second began");
        sleep(Duration::from_millis(2));
    }
    let waiting = bench
        .command(&["run", "workflow.toml", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let refused = bench.run(&[]);
    let working = first.try_wait().unwrap().is_none();
    if working {
        assert_eq!(refused.code, Some(74), "{}", refused.all());
        let words = format!("process {}", first.id());
        assert!(refused.err.contains(&words) && refused.err.contains("--wait"), "{}", refused.err);
    }
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let waited = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert_eq!(waited.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("waiting for process {}", first.id())), "{said}");
    // The second found everything done: a run of its own, all of it from the store.
    let out = String::from_utf8_lossy(&waited.stdout).into_owned();
    assert!(!out.contains("step 1 of"), "{out}");
    let export = fs::read(bench.path("out/model.safetensors")).unwrap();
    assert!(expected.contains(&blake3::hash(&export).to_string()), "the export is another one");
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_aloud_and_the_one_before_is_taken() {
    let expected = expected_of(&long());
    for file in ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"] {
        for cut in [true, false] {
            let bench = long();
            stopped(&bench);
            let checkpoints = bench.run_folder().join("train/checkpoints");
            let mut steps: Vec<_> = fs::read_dir(&checkpoints)
                .unwrap()
                .map(|step| step.unwrap().path())
                .filter(|step| step.file_name().unwrap().to_string_lossy().starts_with("step-"))
                .collect();
            steps.sort();
            let newest = steps.last().unwrap().clone();
            let mut bytes = fs::read(newest.join(file)).unwrap();
            let middle = bytes.len() / 2;
            if cut {
                bytes.truncate(middle);
            } else {
                bytes[middle] ^= 0x40;
            }
            fs::write(newest.join(file), bytes).unwrap();
            let ended = bench.run(&[]);
            assert_eq!(ended.code, Some(0), "{}", ended.all());
            let name = newest.file_name().unwrap().to_string_lossy().into_owned();
            let said = ended.all();
            assert!(said.contains(&format!("{name}: not used: ")), "{file}: {said}");
            assert_eq!(bench.result(), expected, "{file}");
        }
    }
}
