//! Results of other runs: when one is taken, when not and with what words, and what gives way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fp8flow_flow::{Event, Explained, Run, RunOptions, State, Workflow, explain, gc};
use serde_json::json;

use crate::runs::{Bench, overwrite};
use crate::toys::{self, GOOD};

/// A bench with a finished run, and nothing noted of it.
fn run_once() -> Bench {
    let bench = Bench::new();
    bench.run(&[]).expect("it runs");
    bench.calls.take();
    bench.heard.take();
    bench
}

fn store(bench: &Bench) -> PathBuf {
    bench.folder.path().join("runs/.store")
}

/// Every file below `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), fs::read(path).expect("it can be read"));
        }
    }
    files
}

fn object(bench: &Bench, bytes: &[u8]) -> PathBuf {
    let objects = files(&store(bench).join("objects"));
    objects.into_iter().find(|(_, held)| held == bytes).expect("it is stored").0
}

fn explained(bench: &Bench, sets: &[&str], options: &RunOptions) -> Vec<Explained> {
    explain(&bench.plan(sets), &toys::registry(&bench.calls), options).expect("it can be told")
}

/// A line a stage: what would be done, and why.
fn why(bench: &Bench, sets: &[&str]) -> Vec<String> {
    let line = |told: Explained| match told.state {
        State::Run => format!("{}: {}", told.stage, told.reason),
        state => format!("{}: {state:?}", told.stage),
    };
    explained(bench, sets, &RunOptions::default()).into_iter().map(line).collect()
}

fn warnings(bench: &Bench) -> Vec<String> {
    let message = |event| match event {
        Event::Warning { message, .. } => Some(message),
        _ => None,
    };
    bench.heard.take().into_iter().filter_map(message).collect()
}

#[test]
fn a_second_run_takes_every_result_from_the_first_and_says_so() {
    let bench = run_once();
    let (first, record) = bench.last();
    let finished = bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
    let (second, _) = bench.last();
    assert_ne!(first, second);
    for stage in ["records/rows.bin", "tokens/tokens.bin", "model/model.bin", "train/state"] {
        assert_eq!(fs::read(first.join(stage)).expect("there"), fs::read(second.join(stage)).expect("there"));
    }
    // It tells of its own folder, and is whole without the first.
    assert!(finished.artifacts.iter().all(|artifact| artifact.dir.starts_with(&second)));
    assert_eq!(finished.report, ["4 steps"]);
    let cached: Vec<_> = bench.heard.take().into_iter().filter(|event| {
        matches!(event, Event::StageCached { run, reason, .. } if *run == record.id && reason.contains("made by run"))
    }).collect();
    assert_eq!(cached.len(), 5);
    fs::remove_dir_all(first).expect("removed");
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
}

#[test]
fn a_failed_run_leaves_what_it_had_made_to_others() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    bench.calls.take();
    bench.run(&["stages.train.optimizer.lr=2e-3"]).expect("it runs");
    assert_eq!(bench.calls.take(), ["train from 0", "export"]);
}

#[test]
fn a_run_of_its_own_and_one_without_the_cache_do_every_stage() {
    let bench = run_once();
    for (fresh, no_cache) in [(true, false), (false, true)] {
        let options = RunOptions { fresh, no_cache, ..RunOptions::default() };
        assert!(explained(&bench, &[], &options).iter().all(|told| told.state == State::Run));
        bench.run_as(&[], options).expect("it runs");
        assert_eq!(bench.calls.take().len(), 5);
    }
}

#[test]
fn each_cause_is_told_with_its_place_before_anything_runs_and_by_the_run() {
    let bench = run_once();
    let all =
        |state: &str| ["records", "tokens", "model", "train", "export"].map(|s| format!("{s}: {state}"));
    assert_eq!(why(&bench, &[]), all("Cached"));
    let before = files(bench.folder.path());
    let told = |sets: &[&str], stages: &[&str]| {
        let lines = why(&bench, sets);
        let needed: Vec<&String> = lines.iter().filter(|line| !line.ends_with(": Cached")).collect();
        assert_eq!(needed, stages, "{sets:?}");
    };
    // What changes no result, and names, are no cause.
    told(&["stages.train.checkpoint.every_steps=3"], &[]);
    told(&["workflow.name=other"], &[]);
    // A key, in the file or on the command line.
    told(
        &["stages.train.optimizer.lr=2e-3"],
        &["train: optimizer.lr 0.001 → 0.002 (<--set #1>:1:27)", "export: `train` runs"],
    );
    told(
        &["stages.tokens.held_out=0"],
        &["tokens: held_out 0.25 → 0 (<--set #1>:1:24)", "train: `tokens` runs", "export: `train` runs"],
    );
    // The backend concerns the stage that looks at it, the seed the one that draws numbers.
    told(
        &["backend.plugin=none"],
        &["train: backend.plugin \"scaled\" → \"none\" (<--set #1>:1:16)", "export: `train` runs"],
    );
    told(
        &["workflow.seed=8", "stages.train.steps=5"],
        &[
            "model: workflow.seed 7 → 8 (<--set #1>:1:15)",
            "train: steps 4 → 5 (<--set #2>:1:20), `model` runs",
            "export: `train` runs",
        ],
    );
    let path = bench.folder.path().join("w.toml");
    let text = GOOD.replace("lr = 1e-3", "lr = 4e-3");
    let plan = Workflow::parse(&path, text, [""; 0]).and_then(|w| w.plan(&toys::registry(&bench.calls)));
    let plan = plan.expect("it is good");
    let told = explain(&plan, &toys::registry(&bench.calls), &RunOptions::default()).expect("told");
    let change = &told[3].changes[0];
    assert_eq!(
        (change.what.as_str(), &change.before, &change.now),
        ("optimizer.lr", &json!(0.001), &json!(0.004))
    );
    let place = change.place.as_ref().expect("it is written");
    assert_eq!((place.line, place.column), (26, 20));
    assert_eq!(files(bench.folder.path()), before, "nothing was written");
    assert_eq!(bench.calls.take(), [""; 0]);

    bench.run(&["stages.train.optimizer.lr=2e-3"]).expect("it runs");
    let reason = bench.heard.take().into_iter().find_map(|event| match event {
        Event::StageStarted { stage, reason, .. } if stage == "train" => Some(reason),
        _ => None,
    });
    assert_eq!(reason.as_deref(), Some("optimizer.lr 0.001 → 0.002 (<--set #1>:1:27)"));
}

#[test]
fn a_file_that_changed_is_named_and_one_that_changed_back_is_known() {
    let bench = run_once();
    let rows = bench.folder.path().join("rows.txt");
    let whole = fs::read(&rows).expect("there");
    fs::write(&rows, "a\nb\nc\nX\n").expect("written");
    assert_eq!(why(&bench, &[])[0], "records: rows.txt has changed since");
    bench.run(&[]).expect("it runs");
    // The toy's training does not depend on its tokens, so that there is nothing new to export.
    assert_eq!(bench.calls.take(), ["load", "tokenize", "train from 0"]);
    fs::write(&rows, whole).expect("written");
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
}

#[test]
fn a_stage_whose_inputs_come_out_the_same_is_not_done_again() {
    let bench = run_once();
    // Other rows that are cut into the same tokens: the key differs, the result does not.
    bench.run(&["stages.records.format=text", "stages.tokens.cutoff=512"]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
}

#[test]
fn the_machine_counts_for_all_and_the_plugin_for_those_that_use_it() {
    let bench = Bench::new();
    let options = |numerics: u32, plugin: &str| RunOptions {
        binding: json!({ "numerics": numerics, "backend": { "plugin": plugin } }),
        ..RunOptions::default()
    };
    bench.run_as(&[], options(1, "aa")).expect("it runs");
    bench.calls.take();
    let told = explained(&bench, &[], &options(1, "bb"));
    assert_eq!(told[3].reason, "plugin \"aa\" → \"bb\"");
    bench.run_as(&[], options(1, "bb")).expect("it runs");
    assert_eq!(bench.calls.take(), ["train from 0"], "the export of the same weights is the same");
    assert_eq!(explained(&bench, &[], &options(2, "aa"))[0].reason, "numerics 1 → 2");
    bench.run_as(&[], options(2, "aa")).expect("it runs");
    assert_eq!(bench.calls.take().len(), 5);
}

#[test]
fn a_damaged_object_is_said_removed_and_made_again() {
    let bench = run_once();
    let damaged = object(&bench, b"a\nb\nc\nd\n");
    overwrite(&damaged, b"a\nb\nc\nX\n");
    assert!(why(&bench, &[])[0].contains("other contents"), "{:?}", why(&bench, &[]));
    assert!(damaged.exists(), "looking changes nothing");
    bench.run(&[]).expect("it runs");
    // The tokens are the same bytes, and so the same object, which is whole again.
    assert_eq!(bench.calls.take(), ["load"]);
    let said = warnings(&bench);
    assert!(said[0].contains("other contents") && said[0].contains("is removed"), "{said:?}");
    assert_eq!(fs::read(&damaged).expect("it is back"), b"a\nb\nc\nd\n");
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
}

#[test]
fn an_entry_that_was_cut_edited_or_leads_elsewhere_proves_nothing() {
    for spoil in [
        |_: String| "{".to_owned(),
        |text: String| text.replacen("\"size\": 8", "\"size\": 9", 1),
        |text: String| text.replacen("rows.bin", "../../rows.bin", 1),
    ] {
        let bench = run_once();
        for (path, bytes) in files(&store(&bench).join("entries")) {
            let text = String::from_utf8(bytes).expect("JSON");
            if text.contains("rows.bin") {
                fs::write(path, spoil(text)).expect("written");
            }
        }
        bench.run(&[]).expect("it runs");
        assert_eq!(bench.calls.take(), ["load"]);
    }
}

#[test]
fn results_are_read_only_and_what_is_done_again_writes_to_files_of_its_own() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let (folder, _) = bench.last();
    let rows = folder.join("records/rows.bin");
    assert!(fs::metadata(&rows).expect("there").permissions().readonly());
    // Damage of the manifest alone: the stage is done again in its folder, and the stored files stay what they are.
    let stored = files(&store(&bench).join("objects"));
    let path = folder.join("model/stage.json");
    let edited = fs::read_to_string(&path).expect("read").replacen("\"size\": 8", "\"size\": 9", 1);
    fs::write(&path, edited).expect("written");
    bench.run_as(&[], RunOptions { no_cache: true, ..RunOptions::default() }).expect("it goes on");
    let after = files(&store(&bench).join("objects"));
    assert!(stored.iter().all(|(path, bytes)| after[path] == *bytes));
    // What was written outside is the user's: a copy.
    let out = bench.folder.path().join("out/model.bin");
    assert!(!fs::metadata(&out).expect("there").permissions().readonly());
    fs::write(&out, "mine").expect("written");
    assert_eq!(fs::read(object(&bench, b"4")).expect("there"), b"4");
}

#[test]
fn a_result_outside_the_run_must_be_there_or_is_put_back_or_made_again() {
    let bench = run_once();
    let out = bench.folder.path().join("out");
    fs::remove_dir_all(&out).expect("removed");
    assert_eq!(why(&bench, &[])[4], "export: Cached");
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), [""; 0]);
    assert_eq!(fs::read(out.join("model.bin")).expect("it is back"), b"4");
    fs::write(out.join("model.bin"), "5").expect("written");
    assert!(why(&bench, &[])[4].contains("out/model.bin has other contents"), "{:?}", why(&bench, &[])[4]);
    bench.run(&[]).expect("it runs");
    assert_eq!(bench.calls.take(), ["export"]);
    assert_eq!(fs::read(out.join("model.bin")).expect("there"), b"4");
}

#[test]
fn results_are_known_where_the_workflow_was_moved_and_where_stages_have_other_names() {
    let bench = run_once();
    let elsewhere = tempfile::tempdir().expect("a folder");
    for name in ["rows.txt", "runs", "out"] {
        fs::rename(bench.folder.path().join(name), elsewhere.path().join(name)).expect("moved");
    }
    let moved = Bench { folder: elsewhere, ..bench };
    moved.run(&[]).expect("it runs");
    assert_eq!(moved.calls.take(), [""; 0]);
    let text =
        GOOD.replace("stages.tokens]", "stages.cut]").replace("tokens = \"tokens\"", "tokens = \"cut\"");
    let registry = toys::registry(&moved.calls);
    let path = moved.folder.path().join("w.toml");
    let plan = Workflow::parse(&path, text, [""; 0]).and_then(|w| w.plan(&registry)).expect("it is good");
    let run = Run::open(&plan, RunOptions::default()).expect("it opens");
    let finished = run.execute(&registry, moved.heard.observer(), &Arc::default()).expect("it runs");
    assert_eq!(moved.calls.take(), [""; 0]);
    assert_eq!(finished.artifacts[1].stage, "cut");
}

#[test]
fn a_run_that_goes_on_says_what_is_done_and_what_goes_on() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let states: Vec<State> =
        explained(&bench, &[], &RunOptions::default()).iter().map(|told| told.state).collect();
    assert_eq!(states, [State::Done, State::Done, State::Done, State::Resume, State::Run]);
    // A result of another run is better than the half of one.
    bench.run_as(&[], RunOptions { fresh: true, ..RunOptions::default() }).expect("it runs");
    assert_eq!(why(&bench, &[])[3], "train: Cached");
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let bench = run_once();
    let (folder, mut record) = bench.last();
    record.status = fp8flow_flow::Status::Running;
    fs::write(folder.join("run.json"), serde_json::to_vec(&record).expect("JSON")).expect("written");
    // As it is between the old folder and the new one.
    fs::rename(folder.join("train"), folder.join(".train.new")).expect("renamed");
    fs::write(store(&bench).join("aside/123-0"), "half").expect("written");
    bench.run(&[]).expect("it goes on");
    assert_eq!(bench.calls.take(), [""; 0]);
    assert!(folder.join("train/state").exists() && !folder.join(".train.new").exists());
    bench.run(&["stages.train.steps=5"]).expect("it runs");
    assert!(files(&store(&bench).join("aside")).is_empty());
}

#[test]
fn processes_that_run_at_once_share_one_store() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for steps in 1..=8 {
            let bench = &bench;
            scope.spawn(move || {
                let (calls, heard) = (toys::Calls::default(), toys::Heard::default());
                let registry = toys::registry(&calls);
                let sets = [
                    format!("stages.train.steps={}", steps % 4 + 1),
                    format!("stages.export.dir=out{steps}"),
                ];
                let path = bench.folder.path().join("w.toml");
                let plan = Workflow::parse(&path, GOOD, &sets).expect("TOML").plan(&registry).expect("good");
                for _ in 0..5 {
                    let options = RunOptions { fresh: false, ..RunOptions::default() };
                    let run = Run::open(&plan, options).expect("it opens");
                    let cancel = Arc::new(AtomicBool::new(false));
                    run.execute(&registry, heard.observer(), &cancel).expect("it runs");
                }
                let events = heard.take();
                let warned: Vec<_> =
                    events.iter().filter(|event| matches!(event, Event::Warning { .. })).collect();
                assert!(warned.is_empty(), "{warned:?}");
            });
        }
    });
    for steps in 1..=8 {
        let out = fs::read_to_string(bench.folder.path().join(format!("out{steps}/model.bin")));
        assert_eq!(out.expect("there"), (steps % 4 + 1).to_string());
    }
    for (path, bytes) in files(&store(&bench).join("objects")) {
        let digest = fp8flow_flow::digest::of_bytes(&bytes);
        assert!(path.ends_with(format!("{}/{}", &digest[..2], &digest[2..])), "{}", path.display());
    }
}

#[test]
fn gc_keeps_the_newest_runs_and_what_they_refer_to() {
    let bench = Bench::new();
    for lr in ["1e-3", "2e-3", "3e-3"] {
        bench.run(&[&format!("stages.train.optimizer.lr={lr}")]).expect("it runs");
    }
    bench.run(&["stages.train.mishap=fail", "stages.train.optimizer.lr=9e-3"]).expect_err("it fails");
    bench.calls.take();
    let runs = bench.folder.path().join("runs");
    let before = files(&runs);
    let dry = gc::collect(&runs, Some(2), true).expect("it can be told");
    assert_eq!(files(&runs), before);
    let freed = gc::collect(&runs, Some(2), false).expect("it works");
    assert_eq!(freed, dry);
    assert_eq!((freed.runs.len(), freed.results, freed.files), (2, 2, 0));
    assert!(freed.bytes > 0);
    let left = bench.records();
    assert_eq!(left.len(), 2);
    // The newest finished run has everything, and what was unfinished goes on.
    assert_eq!(why(&bench, &["stages.train.optimizer.lr=3e-3"])[4], "export: Cached");
    assert_eq!(
        why(&bench, &["stages.train.optimizer.lr=1e-3"])[3],
        "train: optimizer.lr 0.003 → 0.001 (<--set #1>:1:27)"
    );
    bench.run(&["stages.train.optimizer.lr=9e-3"]).expect("it goes on");
    assert_eq!(bench.calls.take(), ["train from 2, resumed"]);
    let none = gc::collect(&runs, Some(0), false).expect("it works");
    assert_eq!(none.runs.len(), 2);
    let stored = store(&bench);
    assert!(files(&stored.join("objects")).is_empty() && files(&stored.join("entries")).is_empty());
    assert!(!runs.join("latest").is_symlink());
}

#[test]
fn gc_leaves_a_run_that_is_at_work_and_one_that_would_go_on() {
    let bench = Bench::new();
    bench.run(&["stages.train.mishap=fail"]).expect_err("it fails");
    let runs = bench.folder.path().join("runs");
    let freed = gc::collect(&runs, Some(0), false).expect("it works");
    assert_eq!((freed.runs.len(), freed.results), (0, 0));
    let plan = bench.plan(&[]);
    let open = Run::open(&plan, RunOptions::default()).expect("it opens");
    gc::collect(&runs, Some(0), false).expect("it works");
    assert!(open.folder().join("records/stage.json").exists());
}
