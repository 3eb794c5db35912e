//! Programs of the user's as stages, with nothing but a shell.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Bench, quickstart};

const SCORE: &str = r#"#!/bin/sh
# Counts: the rows of $2 for the model in $1, into $3.
set -eu
echo "looking at $(basename "$2")"
rows=$(grep -c '"instruction"' "$2")
printf '{"step": 1, "total": 1, "rows": %s}\n' "$rows" >&3
printf '{"rows": %s, "model": "%s"}\n' "$rows" "$(grep -o '"model_type": *"[a-z]*"' "$1/config.json" | cut -d'"' -f4)" >"$3"
"#;

/// A model, a dataset, and a program that looks at both.
fn scoring() -> Bench {
    let data = quickstart();
    let data = data.display();
    let bench = Bench::new();
    bench.write("score.sh", SCORE);
    bench.write(
        "workflow.toml",
        format!(
            r#"[stages.records]
uses = "data.load"
path = "{data}/dates.json"

[stages.model]
uses = "model.init"
config = "{data}/model/config.json"

[stages.score]
uses = "command"
argv = ["sh", "score.sh", "{{in.model}}", "{{in.rows}}", "{{out.report}}"]
inputs = {{ model = "model", rows = "records" }}
files = ["score.sh"]
outputs = {{ report = "report.json" }}
timeout = "5m"

[stages.tell]
uses = "command"
argv = ["cp", "{{in.score.report}}", "{{out.copy}}"]
inputs = {{ score = "score" }}
outputs = {{ copy = "copy.json" }}
"#
        ),
    );
    bench
}

/// A program that works until it is asked to end, in a process of its own.
fn endless() -> Bench {
    let bench = Bench::new();
    bench.write(
        "work.sh",
        "trap 'echo asked >asked; exit 0' TERM\n[ -e asked ] && exit 0\nsh -c 'while :; do echo x >>\"$0\"; sleep 0.05; done' \"$1/left\" &\necho $$ $! >pids.new\nmv pids.new pids\nwait\n",
    );
    let stage = "[stages.work]\nuses = \"command\"\nargv = [\"sh\", \"work.sh\", \"{stage}\"]\nfiles = [\"work.sh\"]\n";
    bench.write("workflow.toml", stage);
    bench
}

/// The numbers of the processes of [`endless`], once they are at work.
fn at_work(bench: &Bench) -> Vec<String> {
    await_that(|| bench.path("pids").exists());
    let pids = fs::read_to_string(bench.path("pids")).unwrap();
    pids.split_whitespace().map(String::from).collect()
}

fn await_that(happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_mins(1), "it does not happen");
        sleep(Duration::from_millis(10));
    }
}

/// Whether the process is gone, waited for or not.
fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with(['Z', 'X']))
}

fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").args([format!("-{name}"), child.id().to_string()]).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_script_joins_a_pipeline_and_is_run_again_when_it_changes() {
    let bench = scoring();
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(ended.out.contains("looking at dates.json"), "{}", ended.out);
    let folder = bench.run_folder();
    let report: Value = serde_json::from_slice(&fs::read(folder.join("tell/copy.json")).unwrap()).unwrap();
    assert!(report["rows"].as_u64().unwrap() > 100 && report["model"] == "llama", "{report}");
    let measured = fs::read_to_string(folder.join("score/metrics.jsonl")).unwrap();
    assert_eq!(measured, format!("{{\"step\":1,\"total\":1,\"rows\":{}}}\n", report["rows"]));
    let logs = bench.fp8flow(&["logs", "latest", "--stage", "score"]);
    assert!(logs.out.contains("looking at dates.json"), "{}", logs.all());
    let status = bench.fp8flow(&["status", "latest"]);
    assert_eq!(status.code, Some(0), "{}", status.all());

    let check = ["plan", "workflow.toml", "--check", "--explain"];
    assert_eq!(bench.fp8flow(&check).code, Some(0));
    let verified = bench.fp8flow(&["verify", "latest"]);
    assert_eq!(verified.code, Some(0), "{}", verified.all());
    assert_eq!(bench.fp8flow(&["lock", "workflow.toml"]).code, Some(0));
    let lock = fs::read_to_string(bench.path("workflow.lock")).unwrap();
    assert!(lock.contains("\"inputs.model\" = \"model\"") && lock.contains("score.sh"), "{lock}");
    assert_eq!(bench.run(&["--locked"]).code, Some(0));
    bench.write("score.sh", SCORE.replace("set -eu", "set -e"));
    let told = bench.fp8flow(&check);
    assert_eq!(told.code, Some(4));
    assert!(told.out.contains("score.sh has changed since"), "{}", told.out);
}

#[test]
fn a_program_that_fails_says_why_and_mistakes_are_found_before() {
    let bench = scoring();
    bench.write("score.sh", "echo '{\"loss\": 1}' >&3\necho all is lost >&2\nexit 3\n");
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    for words in ["stage `score` failed: `sh` ended with status 3", "  all is lost", "score/log.txt"] {
        assert!(ended.err.contains(words), "no `{words}` in\n{}", ended.err);
    }
    // Its metrics are not those of a training.
    let status = bench.fp8flow(&["status", "latest"]);
    assert_eq!(status.code, Some(0), "{}", status.all());
    assert!(status.out.contains("  all is lost"), "{}", status.out);
    for (set, words) in [
        ("stages.score.inputs.model=modle", "there is no stage `modle`"),
        ("stages.score.outputs.report=../report", "../report is not within the stage's folder"),
        ("stages.score.timeout=soon", "`timeout` is no duration"),
        ("stages.tell.argv=[\"cp\", \"{in.score.raport}\"]", "stage `score` has no output `raport`"),
        ("stages.tell.argv=[\"no-such-program\"]", "`no-such-program` is not on the PATH"),
    ] {
        let ended = bench.run(&["--set", set]);
        assert_eq!(ended.code, Some(3), "{}", ended.all());
        assert!(ended.err.contains(words), "no `{words}` in\n{}", ended.err);
    }
}

#[test]
fn a_signal_reaches_the_program_through_us_and_it_is_begun_again() {
    for name in ["INT", "TERM", "USR1"] {
        let bench = endless();
        let mut child = bench.start();
        let pids = at_work(&bench);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{name}");
        assert!(bench.path("asked").exists() && pids.iter().all(|pid| is_gone(pid)), "{name}");
        let ended = bench.run(&[]);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        assert!(!bench.run_folder().join("work/left").exists());
    }
}

#[test]
fn nothing_writes_into_a_run_whose_process_was_killed() {
    let bench = endless();
    let mut child = bench.start();
    let pids = at_work(&bench);
    assert!(pids.iter().all(|pid| !is_gone(pid)));
    child.kill().unwrap();
    child.wait().unwrap();
    await_that(|| pids.iter().all(|pid| is_gone(pid)));
    bench.write("asked", "");
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
}

#[test]
fn a_second_signal_leaves_at_once_and_takes_a_stubborn_program_along() {
    let bench = endless();
    let script = fs::read_to_string(bench.path("work.sh")).unwrap();
    bench.write(
        "work.sh",
        script.replace("echo asked >asked; exit 0", ": >asked").replace("wait", "wait; wait; wait"),
    );
    let mut child = bench.start();
    let pids = at_work(&bench);
    signal(&child, "TERM");
    await_that(|| bench.path("asked").exists());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    await_that(|| pids.iter().all(|pid| is_gone(pid)));
}

#[test]
fn the_example_is_valid() {
    let path = quickstart().join("../commands.toml");
    let ended = Bench::new().fp8flow(&["plan", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(!ended.all().contains("warning"), "{}", ended.all());
}
