//! Files that a run has read and that hold something else when it goes on.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::program::{Bench, quickstart};

const STEPS: usize = 12;

/// The quickstart with copies of its files, any of which may be changed.
fn bench() -> Bench {
    let (bench, from) = (Bench::new(), quickstart());
    for name in ["dates.json", "model/config.json", "model/tokenizer.json", "model/tokenizer_config.json"] {
        bench.write(name, std::fs::read(from.join(name)).unwrap());
    }
    let from = from.display().to_string();
    bench
        .with(&format!("{from}/dates.json"), "dates.json")
        .with(&format!("{from}/model/tokenizer.json"), "model/tokenizer.json")
        .with(&format!("{from}/model/config.json"), "model/config.json")
        .with(&format!("{from}/model"), "model")
        .with("steps = 4", &format!("steps = {STEPS}"))
}

/// Stops a run once it has trained a step and before the last.
fn stop_while_training(bench: &Bench) {
    let mut child = bench.start();
    loop {
        assert!(child.try_wait().unwrap().is_none(), "ended before the signal");
        let metrics = bench.path("runs/latest/train/metrics.jsonl");
        if std::fs::metadata(metrics).is_ok_and(|metadata| metadata.len() > 0) {
            break;
        }
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
}

/// After `change`, a run that was stopped goes on in its folder, says `words`, and ends as a straight one does.
fn goes_on_as_if_it_had_begun_so(change: impl Fn(&Bench), words: &[&str]) {
    let straight = bench();
    change(&straight);
    let ended = straight.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());

    let stopped = bench();
    stop_while_training(&stopped);
    change(&stopped);
    let ended = stopped.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    for words in words {
        assert!(ended.err.contains(words), "no `{words}` in\n{}", ended.err);
    }
    assert_eq!(stopped.result(), straight.result());
    let steps = std::fs::read_to_string(stopped.run_folder().join("train/metrics.jsonl")).unwrap();
    assert_eq!(steps.lines().count(), STEPS);
}

/// Replaces text in a file.
fn edit(bench: &Bench, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(bench.path(name)).unwrap();
    assert!(text.contains(from), "{name} has no `{from}`");
    bench.write(name, text.replace(from, to));
}

#[test]
fn a_changed_dataset_is_read_again_and_training_begins_afresh() {
    goes_on_as_if_it_had_begun_so(
        |bench| edit(bench, "dates.json", "March", "Marsh"),
        &[
            "records: dates.json has changed since",
            "train: `tokens` has changed since; the stage begins afresh",
        ],
    );
}

#[test]
fn a_changed_model_is_read_again_and_training_begins_afresh() {
    goes_on_as_if_it_had_begun_so(
        |bench| edit(bench, "model/config.json", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-04"),
        &["model: model/config.json has changed since", "train: `model` has changed since"],
    );
}

#[test]
fn a_dataset_that_was_mended_is_read_again() {
    let bench = bench().with("held_out = 4", "held_out = 400").with("steps = 12", "steps = 1");
    let whole = std::fs::read(bench.path("dates.json")).unwrap();
    bench.write("dates.json", r#"[{"instruction": "a", "input": "", "output": "b"}]"#);
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    bench.write("dates.json", whole);
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(ended.err.contains("records: dates.json has changed since"), "{}", ended.err);
    bench.run_folder();
}
