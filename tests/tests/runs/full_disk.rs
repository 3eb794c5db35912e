//! Disks that are full, get full while a run writes, or may not be written to: nothing is lost, and with room the run goes on
//! to the same bytes.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::Duration;

use fp8flow_train::Checkpoints;

use crate::disk::{Disk, left_aside};
use crate::program::{Bench, Ended};
use crate::reproducible::expected_of;

/// More than a run of the tiny workflow takes.
const ROOMY: u64 = 14 << 10;

/// The tiny workflow with more steps, so that most of its time it trains and saves.
fn workflow() -> Bench {
    Bench::tiny().with("dir = \"out\"", "dir = \"disk/out\"").with("steps = 2", "steps = 16")
}

/// That workflow with its runs, its cache and its export on a disk of `kib` KiB.
fn bench_on(kib: u64) -> Option<(Bench, Disk)> {
    let bench = workflow();
    let disk = Disk::mount(bench.path("disk"), kib)?;
    fs::create_dir(disk.path.join("runs")).unwrap();
    for name in ["runs", "out", "cache"] {
        symlink(disk.path.join(name), bench.path(name)).unwrap();
    }
    Some((bench, disk))
}

/// What the only run has told so far, in lines.
fn events(bench: &Bench) -> usize {
    let told = fs::read_to_string(bench.path("runs/latest/events.jsonl"));
    told.map_or(0, |told| told.lines().count())
}

/// Everything that a stopped run has left is good: checkpoints verify.
fn checkpoints_are_whole(bench: &Bench) -> usize {
    let Ok(runs) = fs::read_dir(bench.path("runs")) else { return 0 };
    let mut whole = 0;
    for run in runs.flatten().filter(|run| run.file_type().is_ok_and(|kind| kind.is_dir())) {
        let checkpoints = Checkpoints::new(run.path().join("train/checkpoints"), 2);
        for step in checkpoints.steps().unwrap() {
            checkpoints.verify(step).unwrap();
            whole += 1;
        }
    }
    whole
}

fn says_where(ended: &Ended, bench: &Bench) {
    assert_eq!(ended.code, Some(74), "{}", ended.all());
    let folder = bench.folder.path().display().to_string();
    assert!(ended.err.contains(&folder), "no place in it: {}", ended.err);
    let why = ended.err.contains("No space left") || ended.err.contains("needed");
    assert!(why, "no reason in it: {}", ended.err);
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_anything_is_begun() {
    let Some((bench, disk)) = bench_on(ROOMY) else { return };
    disk.fill(1 << 20);
    let ended = bench.run(&[]);
    says_where(&ended, &bench);
    for words in ["are needed", "are free", "of checkpoints", "checkpoint.keep"] {
        assert!(ended.err.contains(words), "no `{words}` in {}", ended.err);
    }
    assert_eq!(fs::read_dir(bench.path("runs")).unwrap().count(), 0, "something was begun");
    disk.empty();
    assert_eq!(bench.run(&[]).code, Some(0));
    // What is stored is not written again, so that no room is asked for.
    disk.fill(256 << 10);
    let again = bench.run(&[]);
    assert_eq!(again.code, Some(0), "{}", again.all());
}

/// The disk gets full at one moment after another, with a little or nothing left.
#[test]
fn a_disk_that_gets_full_stops_the_run_and_with_room_it_ends_with_the_same_bytes() {
    let straight = workflow();
    symlink(straight.path("disk/out"), straight.path("out")).unwrap();
    let expected = expected_of(&straight);
    let (whole, moments) = (events(&straight), 24);
    let (mut stopped, mut resumed) = (0, 0);
    for moment in 0..moments {
        let Some((bench, disk)) = bench_on(ROOMY) else { return };
        let mut command = bench.command(&["run", "workflow.toml"]);
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        while events(&bench) < whole * moment / moments && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_micros(200));
        }
        disk.fill([0, 4 << 10, 100 << 10, 1300 << 10][moment % 4]);
        let ended: Ended = child.wait_with_output().unwrap().into();
        let checkpoints = checkpoints_are_whole(&bench);
        if ended.code != Some(0) {
            says_where(&ended, &bench);
            stopped += 1;
            resumed += usize::from(checkpoints > 0);
            println!(
                "moment {moment}, {checkpoints} checkpoints: {}",
                ended.err.lines().next().unwrap_or_default()
            );
        }
        disk.empty();
        if ended.code != Some(0) {
            let again = bench.run(&[]);
            assert_eq!(again.code, Some(0), "moment {moment}: {}{}", ended.all(), again.all());
        }
        assert_eq!(bench.result(), expected, "moment {moment}");
        assert_eq!(left_aside(bench.folder.path()), [""; 0].map(std::path::PathBuf::from), "moment {moment}");
    }
    println!("stopped at {stopped} of {moments} moments, {resumed} times with a checkpoint");
    assert!(stopped > 0);
}

#[test]
fn a_disk_that_may_only_be_read_is_said_by_name() {
    let bench = Bench::tiny();
    let Some(disk) = Disk::mount(bench.path("disk"), ROOMY) else { return };
    disk.remount("ro");
    let ended = bench.run(&["--runs", "disk/runs"]);
    assert_eq!(ended.code, Some(74), "{}", ended.all());
    assert!(ended.err.contains("disk/runs") && ended.err.contains("Read-only"), "{}", ended.err);
    disk.remount("rw");
    assert_eq!(bench.run(&["--runs", "disk/runs"]).code, Some(0));
    disk.remount("ro");
    // Nothing is written for a look.
    assert_eq!(bench.fp8flow(&["status", "disk/runs/latest"]).code, Some(0));
}
