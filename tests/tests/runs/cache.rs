//! A second run of the binary takes what the first has made, and what is told of that.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::program::Bench;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Stage and state, as `plan --check --json` tells them.
fn states(bench: &Bench, sets: &[&str], code: i32) -> Vec<String> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> =
        ["plan", "workflow.toml", "--check", "--json"].into_iter().chain(sets).collect();
    let ended = bench.fp8flow(&arguments);
    assert_eq!(ended.code, Some(code), "{}", ended.all());
    let told = json(&ended.out);
    assert_eq!(told["work_needed"], code == 4);
    let stages = told["stages"].as_array().unwrap();
    stages.iter().map(|told| format!("{} {}", told["stage"], told["state"]).replace('"', "")).collect()
}

#[test]
fn what_is_stored_is_not_done_again_and_has_the_bytes_of_a_straight_run() {
    let bench = Bench::new();
    assert_eq!(states(&bench, &[], 4)[0], "records run");
    assert!(!bench.path("runs").exists(), "nothing was started");
    assert_eq!(bench.run(&[]).code, Some(0));
    let result = bench.result();
    let all = |state: &str| {
        ["records", "tokens", "model", "layers", "train", "export"].map(|stage| format!("{stage} {state}"))
    };
    assert_eq!(states(&bench, &[], 0), all("cached"));
    assert_eq!(states(&bench, &["stages.train.checkpoint.every_steps=2"], 0), all("cached"));

    // Another export of the same model: the state that was trained says nothing of the rest of the workflow.
    let first = bench.run_folder();
    fs::remove_dir_all(bench.path("out")).unwrap();
    let began = Instant::now();
    let ended = bench.run(&[]);
    println!("a run that is all cached took {:?}", began.elapsed());
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let name = first.file_name().unwrap().to_string_lossy();
    assert_eq!(ended.out.matches(&format!("made by run {name}")).count(), 6, "{}", ended.out);
    assert!(fs::exists(bench.path("runs/latest/checkpoints/step-00000004/model.safetensors")).unwrap());
    assert_eq!(bench.fp8flow(&["gc", "--keep", "1"]).code, Some(0));
    assert_eq!(bench.result(), result, "the export is back, and the second run is whole without the first");
    assert_ne!(bench.run_folder(), first);

    let straight = Bench::new().with("dir = \"out\"", "dir = \"out\"\ndtype = \"f32\"");
    assert_eq!(straight.run(&[]).code, Some(0));
    let set = "stages.export.dtype=f32";
    assert_eq!(states(&bench, &[set], 4)[4..], ["train cached", "export run"]);
    assert_eq!(bench.run(&["--set", set]).code, Some(0));
    assert_eq!(bench.fp8flow(&["gc", "--keep", "1"]).code, Some(0));
    assert_eq!(bench.result(), straight.result());
}

#[test]
fn why_a_stage_runs_is_told_to_the_column() {
    let bench = Bench::new();
    assert_eq!(bench.run(&[]).code, Some(0));
    let bench = bench.with("lr = 3e-3", "lr = 1e-3").with("held_out = 4", "held_out = 5");
    let ended = bench.fp8flow(&["plan", "workflow.toml", "--explain"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let text = fs::read_to_string(bench.path("workflow.toml")).unwrap();
    let line = |key: &str| text.lines().position(|line| line.contains(key)).unwrap() + 1;
    for words in [
        format!("held_out 4 → 5 (workflow.toml:{}:12)", line("held_out")),
        format!("optimizer.lr 0.003 → 0.001 (workflow.toml:{}:20), `tokens` runs", line("optimizer")),
        "3 of 6 stages need work; nothing was started".to_owned(),
    ] {
        assert!(ended.out.contains(&words), "no `{words}` in\n{}", ended.out);
    }
    let ended = bench.run(&["--json"]);
    let events: Vec<Value> = ended.out.lines().map(json).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((of("stage_cached"), of("stage_started")), (3, 3));
    assert_eq!(
        states(&bench, &["backend.recipe=tensorwise"], 4)[..3],
        ["records cached", "tokens cached", "model cached"]
    );
}

/// T12: raising the number of steps goes on from the state that is stored, lowering it finds that state, and either way
/// the bytes are those of a run that went straight there.
#[test]
fn another_number_of_steps_goes_on_from_the_nearest_state() {
    let bench = || {
        let checkpoint = "every_steps = 2, keep = 9";
        Bench::new().with("\"cosine\"", "\"constant\"").with("every_steps = 1, keep = 2", checkpoint)
    };
    let steps = |steps: u64| format!("stages.train.steps={steps}");
    let straight = |n: u64| {
        let bench = bench();
        assert_eq!(bench.run(&["--set", &steps(n)]).code, Some(0));
        bench.result()
    };
    let bench = bench();
    let reach = |n: u64, reason: &str| {
        let ended = bench.run(&["--json", "--set", &steps(n)]);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        let events: Vec<Value> = ended.out.lines().map(json).collect();
        let train =
            events.iter().find(|event| event["event"] == "stage_started" && event["stage"] == "train");
        let told = train.expect("it trains")["reason"].as_str().unwrap_or("");
        assert!(told.contains(reason), "{told}");
        assert_eq!(bench.fp8flow(&["gc", "--keep", "1"]).code, Some(0));
        let metrics = fs::read_to_string(bench.path("runs/latest/metrics.jsonl")).unwrap();
        assert_eq!(metrics.lines().count() as u64, n, "no step twice, none missing");
        let result = bench.result();
        fs::remove_dir_all(bench.path("out")).unwrap();
        result
    };
    reach(6, "no result of it is stored");
    assert_eq!(states(&bench, &[&steps(9)], 4)[4], "train resume");
    assert_eq!(reach(9, "after step 6, its files verified"), straight(9), "raised");
    assert_eq!(reach(4, "after step 4, its files verified"), straight(4), "lowered to a state");
    assert_eq!(states(&bench, &[&steps(4)], 0)[4], "train cached");
    assert_eq!(reach(5, "after step 4, its files verified"), straight(5), "raised to no state");

    let bound = Bench::new();
    assert_eq!(bound.run(&[]).code, Some(0));
    let said = bound.fp8flow(&["plan", "workflow.toml", "--explain", "--set", &steps(8)]).out;
    assert!(said.contains("with `schedule.steps = 8` it would go on from this one"), "{said}");
}
