//! A run as a folder: what it holds, when it goes on, what is done again and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fp8flow_flow::{
    Class, Crash, Error, Event, Finished, Plan, Record, Run, RunOptions, Seen, Standing, Status, Workflow,
    runs,
};
use serde_json::{Value, json};

use crate::toys::{self, Calls, GOOD, Heard};

/// A folder with the good workflow, and what its runs did.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) calls: Calls,
    pub(crate) heard: Heard,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: toys::folder(), calls: Calls::default(), heard: Heard::default() }
    }

    pub(crate) fn plan(&self, sets: &[&str]) -> Plan {
        let path = self.folder.path().join("w.toml");
        let workflow = Workflow::parse(&path, GOOD, sets).expect("it is TOML");
        workflow.plan(&toys::registry(&self.calls)).expect("it is good")
    }

    pub(crate) fn run(&self, sets: &[&str]) -> Result<Finished, Error> {
        self.run_as(sets, RunOptions::default())
    }

    pub(crate) fn run_as(&self, sets: &[&str], options: RunOptions) -> Result<Finished, Error> {
        let plan = self.plan(sets);
        let cancel = Arc::new(AtomicBool::new(false));
        Run::open(&plan, options)?.execute(&toys::registry(&self.calls), self.heard.observer(), &cancel)
    }

    pub(crate) fn records(&self) -> Vec<(PathBuf, Record)> {
        runs(&self.folder.path().join("runs"))
    }

    /// The newest run.
    pub(crate) fn last(&self) -> (PathBuf, Record) {
        self.records().pop().expect("there is a run")
    }
}

/// Writes `bytes` into the file that is at `path`, whatever its other names are.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    let mut permissions = fs::metadata(path).expect("it is there").permissions();
    permissions.set_mode(0o644);
    fs::set_permissions(path, permissions).expect("it is ours");
    fs::write(path, bytes).expect("written");
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("it is JSON")
}

#[test]
fn a_run_leaves_its_record_its_plan_its_events_and_a_folder_a_stage() {
    let bench = Bench::new();
    let environment = json!({ "argv": ["fp8flow", "run"], "isa": "avx2" });
    let options = RunOptions { environment: environment.clone(), ..RunOptions::default() };
    let finished = bench.run_as(&[], options).expect("it runs");
    assert_eq!(bench.calls.take(), ["load", "tokenize", "init", "train from 0", "export"]);

    let (folder, record) = bench.last();
    assert_eq!(finished.folder, folder);
    assert_eq!((record.status, record.exit_code, record.attempts), (Status::Finished, Some(0), 1));
    assert_eq!(record.environment, environment);
    assert_eq!(json(&folder.join("plan.json"))["stages"][1]["params"]["cutoff"], 512);
    assert_eq!(fs::read_to_string(folder.join("report.txt")).expect("it is there"), "4 steps\n");
    let manifest = json(&folder.join("records/stage.json"));
    assert_eq!(manifest["outputs"][0]["path"], "rows.bin");
    assert_eq!(manifest["outputs"][0]["size"], 8);
    let outside = json(&folder.join("export/stage.json"))["outputs"][0]["path"].clone();
    assert_eq!(outside, bench.folder.path().join("out/model.bin").display().to_string());
    assert_eq!(fs::read_link(folder.with_file_name("latest")).expect("a link"), Path::new(&record.id));

    let events = fs::read_to_string(folder.join("events.jsonl")).expect("it is there");
    let names: Vec<String> = events
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["event"].as_str().expect("a name").into()
        })
        .filter(|name| name != "progress")
        .collect();
    let mut expected = vec!["run_started"];
    expected.extend(["stage_started", "stage_finished"].repeat(5));
    expected.extend(["report", "run_finished"]);
    assert_eq!(names, expected);
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let error = bench.run(&["stages.train.mishap=interrupt"]).expect_err("it is interrupted");
    assert_eq!(error.class().exit_code(), 75);
    assert_eq!(error.to_string(), "stage `train` was interrupted: state saved at step 2");
    let (folder, record) = bench.last();
    assert_eq!((record.status, record.exit_code), (Status::Interrupted, Some(75)));
    bench.calls.take();
    bench.heard.take();

    let finished = bench.run(&["stages.train.mishap=interrupt"]).expect("it goes on");
    assert_eq!(finished.folder, folder);
    assert_eq!(bench.calls.take(), ["train from 2, resumed", "export"]);
    let (_, record) = bench.last();
    assert_eq!((record.status, record.attempts, record.error), (Status::Finished, 2, None));
    let events = bench.heard.take();
    assert!(
        matches!(&events[0], Event::RunResumed { reason, .. } if reason.contains("state saved at step 2")),
        "{events:?}"
    );
    assert!(
        matches!(&events[1], Event::StageSkipped { stage, reason }
            if stage == "records" && reason.contains("its file verified")),
        "{events:?}"
    );
    // The whole report, also of stages that were not run again.
    assert_eq!(finished.report, ["4 steps"]);
}

#[test]
fn a_finished_run_is_not_gone_on_with() {
    let bench = Bench::new();
    bench.run(&[]).expect("it runs");
    bench.run(&[]).expect("another has its results");
    assert_eq!(bench.records().len(), 2);
    assert_eq!(bench.calls.take().len(), 5);
    bench.run_as(&[], RunOptions { no_cache: true, ..RunOptions::default() }).expect("it runs");
    assert_eq!(bench.records().len(), 3);
    assert_eq!(bench.calls.take().len(), 5);
    // Nor is what came before it.
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    bench.run_as(&[], RunOptions { fresh: true, ..RunOptions::default() }).expect("it runs");
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.records().len(), 3);
}

#[test]
fn other_values_are_another_run_unless_they_change_no_result() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    bench.run(&["stages.train.mishap=fail", "stages.train.steps=5"]).expect_err("another run fails");
    assert_eq!(bench.records().len(), 2);
    bench.run(&["stages.train.checkpoint.every_steps=3"]).expect("the first goes on");
    let status: Vec<Status> = bench.records().iter().map(|(_, record)| record.status).collect();
    assert_eq!(status, [Status::Finished, Status::Failed]);
}

#[test]
fn another_binding_is_another_run_and_is_said() {
    let bench = Bench::new();
    let options = |digest: &str| RunOptions { binding: json!({ "plugin": digest }), ..RunOptions::default() };
    bench.run_as(&["stages.train.mishap=fail"], options("aa")).expect_err("it fails");
    bench.heard.take();
    bench.run_as(&[], options("bb")).expect("it runs");
    assert_eq!(bench.records().len(), 2);
    let events = bench.heard.take();
    assert!(
        matches!(&events[0], Event::Warning { message, .. } if message.contains("plugin was \"aa\" and is \"bb\"")),
        "{events:?}"
    );
}

#[test]
fn an_error_of_a_stage_keeps_its_class_and_its_help() {
    let bench = Bench::new();
    let error = bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    assert_eq!(error.to_string(), "stage `train` failed: the loss of step 2 is not finite");
    assert_eq!((error.class(), error.help().as_deref()), (Class::Failed, Some("Lower `lr`.")));
    let (folder, record) = bench.last();
    assert_eq!(record.error, Some(error.to_string()));
    assert!(!folder.join("train/stage.json").exists());
}

#[test]
fn a_panic_is_a_bug_of_that_stage() {
    let bench = Bench::new();
    let error = bench.run(&["stages.train.mishap=panic"]).expect_err("it panics");
    assert_eq!(error.class().exit_code(), 70);
    assert_eq!(error.to_string(), "stage `train` hit a bug: panicked: layer 3 is upside down");
    assert_eq!(bench.last().1.status, Status::Failed);
}

#[test]
fn a_result_that_changed_on_disk_is_made_again_with_all_that_follows() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let (folder, _) = bench.last();
    // The same size, so that only the digest can tell; the stored file is the same one.
    overwrite(&folder.join("records/rows.bin"), b"a\nb\nc\nX\n");
    bench.calls.take();
    bench.heard.take();
    bench.run(&[]).expect("it goes on");
    // What is made again is what it was, so that the tokens made from it still stand.
    assert_eq!(bench.calls.take(), ["load", "train from 2, resumed", "export"]);
    let warned =
        |event: &Event| matches!(event, Event::Warning { message, .. } if message.contains("other contents"));
    assert!(bench.heard.take().iter().any(warned));

    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    fs::write(bench.folder.path().join("rows.txt"), "a\n").expect("written");
    fs::remove_file(bench.last().0.join("records/rows.bin")).expect("removed");
    bench.calls.take();
    bench.run(&[]).expect("it goes on");
    assert_eq!(bench.calls.take(), ["load", "tokenize", "train from 0", "export"]);
}

#[test]
fn a_file_that_has_changed_since_it_was_read_is_read_again_and_what_follows_begins_afresh() {
    let bench = Bench::new();
    let rows = bench.folder.path().join("rows.txt");
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    bench.calls.take();
    bench.heard.take();
    // The same size, so that only the digest can tell.
    fs::write(&rows, "a\nb\nc\nX\n").expect("written");
    bench.run(&["stages.train.mishap=fail"]).expect_err("it begins afresh, so that it fails again");
    assert_eq!(bench.calls.take(), ["load", "tokenize", "train from 0"]);
    let warnings: Vec<String> = bench
        .heard
        .take()
        .into_iter()
        .filter_map(|event| match event {
            Event::Warning { stage, message } => Some(format!("{stage}: {message}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        warnings,
        [
            "records: rows.txt has changed since; the stage is done again",
            "tokens: `records` has changed since; the stage is done again",
            "train: `tokens` has changed since; the stage begins afresh",
        ]
    );
    // A file that was only touched is what it was.
    fs::write(&rows, "a\nb\nc\nX\n").expect("written");
    bench.run(&[]).expect("it goes on");
    assert_eq!(bench.calls.take(), ["train from 2, resumed", "export"]);
    assert_eq!(bench.records().len(), 1);
}

#[test]
fn what_was_begun_with_other_inputs_is_no_start_even_after_an_attempt_that_never_came_to_it() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    fs::write(bench.folder.path().join("rows.txt"), "x\n").expect("written");
    // Stopped as soon as it is heard that the tokens are made again.
    let (plan, cancel) = (bench.plan(&[]), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&cancel);
    let observer = move |event: &Event| {
        if matches!(event, Event::StageFinished { stage, .. } if stage == "tokens") {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let run = Run::open(&plan, RunOptions::default()).expect("it opens");
    run.execute(&toys::registry(&bench.calls), Arc::new(observer), &cancel).expect_err("it stops");
    bench.calls.take();
    bench.run(&[]).expect("it goes on");
    assert_eq!(bench.calls.take(), ["train from 0", "export"]);
}

#[test]
fn a_run_whose_workflow_was_moved_with_its_files_still_knows_them() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    bench.calls.take();
    let elsewhere = tempfile::tempdir().expect("a folder");
    for name in ["rows.txt", "runs"] {
        fs::rename(bench.folder.path().join(name), elsewhere.path().join(name)).expect("moved");
    }
    let moved = Bench { folder: elsewhere, ..bench };
    moved.run(&[]).expect("it goes on");
    assert_eq!(moved.calls.take(), ["train from 2, resumed", "export"]);
}

#[test]
fn a_manifest_that_was_cut_or_edited_proves_nothing() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let (folder, _) = bench.last();
    fs::write(folder.join("records/stage.json"), "{ \"format\": 1").expect("written");
    let path = folder.join("model/stage.json");
    let edited = fs::read_to_string(&path).expect("read").replacen("\"size\": 8", "\"size\": 9", 1);
    fs::write(&path, edited).expect("written");
    bench.calls.take();
    bench.run_as(&[], RunOptions { no_cache: true, ..RunOptions::default() }).expect("it goes on");
    assert_eq!(bench.calls.take(), ["load", "init", "train from 2, resumed", "export"]);
}

#[test]
fn a_run_that_was_killed_goes_on_and_its_leftovers_are_removed() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let (folder, mut record) = bench.last();
    // As kill -9 leaves it: running, a half line, a file aside.
    record.status = Status::Running;
    fs::write(folder.join("run.json"), serde_json::to_vec(&record).expect("JSON")).expect("written");
    fs::write(folder.join(".run.json.aside"), "{").expect("written");
    fs::write(folder.join("train/.state.aside"), "x").expect("written");
    let mut events = fs::read(folder.join("events.jsonl")).expect("read");
    events.extend(b"{\"time\":\"20");
    fs::write(folder.join("events.jsonl"), &events).expect("written");
    bench.heard.take();
    bench.run(&[]).expect("it goes on");
    assert!(matches!(&bench.heard.take()[0], Event::RunResumed { reason, .. } if reason == "it was killed"));
    assert!(!folder.join(".run.json.aside").exists() && !folder.join("train/.state.aside").exists());
    let text = fs::read_to_string(folder.join("events.jsonl")).expect("read");
    let broken: Vec<&str> =
        text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).collect();
    assert_eq!(broken, ["{\"time\":\"20"]);
}

#[test]
fn a_run_that_a_plugin_has_crashed_says_so_until_it_goes_on() {
    let words = "plugin `p` crashed it with SIGBUS (bus error) in `forward` of layer `l`";
    let whole = r#"{"plugin":"p","layer":"l","call":"forward","signal":"SIGBUS (bus error)"}"#;
    for (note, reason) in [(whole, words), (&whole[..20], "it was killed")] {
        let bench = Bench::new();
        bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
        let (folder, mut record) = bench.last();
        fs::write(Crash::path(&folder), note).expect("written");
        // It has ended well enough to say why.
        assert_eq!(Seen::look(&folder).expect("a run").crash, None);
        record.status = Status::Running;
        fs::write(folder.join("run.json"), serde_json::to_vec(&record).expect("JSON")).expect("written");
        let seen = Seen::look(&folder).expect("a run");
        assert_eq!(seen.standing, Standing::Killed);
        assert_eq!(seen.crash.map(|crash| crash.to_string()).as_deref(), (note == whole).then_some(words));
        bench.heard.take();
        bench.run(&[]).expect("it goes on");
        let begun = bench.heard.take().swap_remove(0);
        assert!(matches!(&begun, Event::RunResumed { reason: said, .. } if said == reason), "{begun:?}");
        assert!(!Crash::path(&folder).exists());
    }
}

#[test]
fn a_run_may_be_moved_between_attempts() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::rename(bench.folder.path().join("runs"), &elsewhere).expect("moved");
    let options = RunOptions { runs: Some(elsewhere.clone()), ..RunOptions::default() };
    let finished = bench.run_as(&[], options).expect("it goes on");
    assert!(finished.artifacts.iter().all(|artifact| artifact.dir.starts_with(&elsewhere)));
}

#[test]
fn one_process_works_on_a_run() {
    let bench = Bench::new();
    let plan = bench.plan(&[]);
    let first = Run::open(&plan, RunOptions::default()).expect("it opens");
    let error = Run::open(&plan, RunOptions::default()).expect_err("it is in use");
    assert_eq!(error.class(), Class::Io);
    let said = error.to_string();
    assert!(said.contains(first.id()) && said.contains("is in use by another process"), "{said}");
    assert!(error.help().is_some_and(|help| help.contains("--fresh")));
    let fresh = RunOptions { fresh: true, ..RunOptions::default() };
    assert_ne!(Run::open(&plan, fresh).expect("a run of its own").id(), first.id());
    drop(first);
    assert!(Run::open(&plan, RunOptions::default()).expect("it is free").resumed());
}

#[test]
fn nothing_begins_once_it_was_asked_to_stop() {
    let bench = Bench::new();
    let plan = bench.plan(&[]);
    let run = Run::open(&plan, RunOptions::default()).expect("it opens");
    let cancel = Arc::new(AtomicBool::new(true));
    let error =
        run.execute(&toys::registry(&bench.calls), bench.heard.observer(), &cancel).expect_err("it stops");
    assert_eq!(error.class(), Class::Interrupted);
    assert!(bench.calls.take().is_empty());
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_before_anything_runs() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("runs"), "a file").expect("written");
    let error = bench.run(&[]).expect_err("it cannot be written");
    assert_eq!(error.class().exit_code(), 74);
    assert!(error.to_string().starts_with("cannot create "), "{error}");
    assert!(bench.calls.take().is_empty());
}

#[test]
fn a_file_that_changes_while_a_stage_reads_it_gives_no_result() {
    let bench = Bench::new();
    let rows = bench.folder.path().join("rows.txt");
    fs::write(&rows, "somebody writes\n").expect("written");
    let error = bench.run(&[]).expect_err("what was read is not what is there");
    assert!(error.to_string().contains("rows.txt has changed while the stage was at work"), "{error}");
    assert_eq!(error.class(), Class::Failed);
    let finished = bench.run(&[]).expect("nobody writes any more");
    assert_eq!(finished.artifacts[0].info["rows"], 2);
}

#[test]
fn a_file_that_changes_between_two_stages_is_not_passed_on() {
    let bench = Bench::new();
    let rows = bench.folder.path().join("rows.txt");
    let plan = bench.plan(&[]);
    let written = rows.clone();
    let observer = move |event: &Event| {
        if matches!(event, Event::StageFinished { stage, .. } if stage == "records") {
            fs::write(&written, "other\n").expect("written");
        }
    };
    let run = Run::open(&plan, RunOptions::default()).expect("it opens");
    let ran = run.execute(&toys::registry(&bench.calls), Arc::new(observer), &Arc::default());
    let error = ran.expect_err("the tokens would be of something else").to_string();
    assert!(
        error.contains("stage `tokens` failed: rows.txt has changed since stage `records` read it"),
        "{error}"
    );
    bench.calls.take();
    let finished = bench.run(&[]).expect("it is read again");
    assert_eq!(finished.artifacts[0].info["rows"], 1);
    assert_eq!(bench.calls.take()[0], "load");
}
