//! `workflow.lock`: what it pins, and what a run that is held to it refuses.

use std::fs;

use crate::program::{Bench, Ended, quickstart};

/// A workflow with a dataset of its own.
fn bench() -> Bench {
    let rows = fs::read(quickstart().join("dates.json")).unwrap();
    let bench = Bench::new().with(&format!("{}/dates.json", quickstart().display()), "dates.json");
    bench.write("dates.json", rows);
    bench
}

fn locked(bench: &Bench, more: &[&str]) -> Ended {
    bench.run(&[&["--locked"], more].concat())
}

fn lock(bench: &Bench, more: &[&str]) -> Ended {
    bench.fp8flow(&[&["lock", "workflow.toml"], more].concat())
}

/// The line of the revision.
fn numerics() -> String {
    format!("numerics = {}", fp8flow_kernels::NUMERICS_REVISION)
}

/// Ends with `code` and says all of `words`.
#[track_caller]
fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.all());
    for words in words {
        assert!(ended.all().contains(words), "no `{words}` in\n{}", ended.all());
    }
}

fn runs(bench: &Bench) -> usize {
    fs::read_dir(bench.path("runs"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().join("run.json").exists())
        .count()
}

#[test]
fn a_run_that_is_held_to_a_lock_has_its_bytes_or_says_what_differs() {
    let bench = bench();
    said(&locked(&bench, &[]), 5, &["workflow.lock", "there is no such file"]);
    said(&lock(&bench, &[]), 1, &["no whole result of `records`, `tokens`", "Run the workflow first"]);
    assert_eq!(bench.run(&[]).code, Some(0));
    said(&lock(&bench, &[]), 0, &["workflow.lock: every stage is pinned"]);
    let text = fs::read_to_string(bench.path("workflow.lock")).unwrap();
    for words in [
        numerics().as_str(),
        "name = \"torchao-rowwise\"",
        "lr = 0.003",
        "path = \"dates.json\"",
        "[stages.train.left]",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    assert!(!text.contains("metrics.jsonl") && !text.contains("threads"), "no times and no threads: {text}");
    said(&lock(&bench, &[]), 0, &[]);
    assert_eq!(fs::read_to_string(bench.path("workflow.lock")).unwrap(), text, "the same again");

    said(&locked(&bench, &[]), 0, &[]);
    fs::remove_dir_all(bench.path("out")).unwrap();
    said(&locked(&bench, &["--fresh", "--threads", "1"]), 0, &["[6/6] export"]);
    said(&locked(&bench, &["--only", "layers"]), 0, &[]);
    let before = runs(&bench);

    let lr = ["--set", "stages.train.optimizer.lr=1e-3", "--set", "backend.recipe=tensorwise"];
    let words = [
        "stages.train.optimizer.lr is 0.001 and was 0.003 (<--set #1>:1:",
        "backend.recipe is \"tensorwise\" and was \"rowwise\" (<--set #2>:1:",
    ];
    said(&locked(&bench, &lr), 5, &words);
    let rows = fs::read_to_string(bench.path("dates.json")).unwrap();
    bench.write("dates.json", rows.replacen("Monday", "Tuesday", 1) + " ");
    said(&locked(&bench, &[]), 5, &["stages.records reads dates.json: ", " and was "]);
    bench.write("dates.json", rows);
    assert_eq!(runs(&bench), before, "nothing was started");

    // A result that is another: found after its stage, by the file.
    let at = text.find("checkpoints/step-00000004/model.safetensors").unwrap();
    let digest = at + text[at..].find("blake3 = \"").unwrap() + 10;
    let other = if text.as_bytes()[digest] == b'0' { "1" } else { "0" };
    let edited = format!("{}{other}{}", &text[..digest], &text[digest + 1..]);
    bench.write("workflow.lock", &edited);
    let words = ["stages.train made checkpoints/step-00000004/model.safetensors: "];
    said(&locked(&bench, &["--fresh"]), 5, &words);

    bench.write("workflow.lock", text.replacen("format = 1", "format = 9", 1));
    said(&locked(&bench, &[]), 3, &["workflow.lock is no lock: it has format 9"]);
    bench.write("workflow.lock", text.replacen(&numerics(), "numerics", 1));
    said(&locked(&bench, &[]), 3, &["workflow.lock is no lock: ", "line "]);
}

#[test]
fn an_update_pins_a_stage_and_those_after_it_and_nothing_else() {
    let bench = bench();
    assert_eq!(bench.run(&[]).code, Some(0));
    assert_eq!(lock(&bench, &[]).code, Some(0));
    let old = fs::read_to_string(bench.path("workflow.lock")).unwrap();
    let bench = bench.with("lr = 3e-3", "lr = 1e-3");
    fs::remove_dir_all(bench.path("out")).unwrap();
    assert_eq!(bench.run(&[]).code, Some(0));
    said(&lock(&bench, &["--update", "export"]), 5, &["stages.train.optimizer.lr is 0.001 and was 0.003"]);
    assert_eq!(fs::read_to_string(bench.path("workflow.lock")).unwrap(), old, "nothing is written");
    said(&lock(&bench, &["--update", "trian"]), 3, &["no stage `trian`"]);
    said(&lock(&bench, &["--update", "train"]), 0, &["pinned again: train, export"]);
    said(&locked(&bench, &[]), 0, &[]);
    let new = fs::read_to_string(bench.path("workflow.lock")).unwrap();
    let part = |text: &str, stage: &str| {
        let from = text.find(&format!("[stages.{stage}]")).unwrap();
        let to = text[from + 1..].find("\n[stages.").map_or(text.len(), |to| from + 1 + to);
        text[from..to].to_owned()
    };
    for stage in ["records", "tokens", "model", "layers"] {
        assert_eq!(part(&old, stage), part(&new, stage));
    }
    assert_ne!(old, new);
}
