//! Signals, and going on after them.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _, pipe};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, Said};

/// A run of many steps, stopped at its first progress in training by `signal`. Returns the exit code (or 128 and the
/// signal's number for one that was not caught) and the events.
fn stopped_by(bench: &Bench, signal: &str) -> (i32, Vec<Value>) {
    let line = "run workflow.toml --json --set stages.train.steps=1000000";
    let mut child: Child =
        bench.command(line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        let first = event["event"] == "progress"
            && event["stage"] == "train"
            && !events.iter().any(|e| e["event"] == "sent");
        events.push(event);
        if first {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &id]).status().expect("kill").success());
            events.push(serde_json::json!({ "event": "sent" }));
        }
    }
    let status = child.wait().expect("it ends");
    let uncaught = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    (status.code().or(uncaught).expect("a code"), events)
}

fn step_of(events: &[Value], which: impl Fn(&&Value) -> bool) -> Option<u64> {
    events.iter().find(|event| event["event"] == "progress" && event["stage"] == "train" && which(event))?["done"].as_u64()
}

#[test]
fn each_signal_saves_and_the_next_run_goes_on_there() {
    let bench = Bench::small();
    let mut last = 0;
    for signal in ["TERM", "INT", "USR1"] {
        let (code, events) = stopped_by(&bench, signal);
        assert_eq!(code, 75, "{signal}");
        let first = step_of(&events, |_| true).expect("a step");
        assert_eq!(first, last + 1, "{signal}");
        last = events
            .iter()
            .filter(|event| event["event"] == "metrics")
            .filter_map(|event| event["values"]["step"].as_u64())
            .max()
            .expect("a step");
        let (_, run) = bench.runs().pop().expect("a run");
        assert_eq!((run["status"].as_str(), run["exit_code"].as_u64()), (Some("interrupted"), Some(75)));
        let error = events.last().expect("an event");
        assert_eq!((error["event"].as_str(), error["class"].as_str()), (Some("error"), Some("interrupted")));
    }
    assert_eq!(bench.runs().len(), 1);
}

/// Its program stops the run, which then waits for the program, and stops it again when it is asked to end. If that did
/// nothing, it would kill it.
const TWICE: &str = r#"
[workflow]
name = "twice"

[stages.wait]
uses = "command"
argv = ["sh", "-c", "trap 'kill -TERM $PPID; sleep 30; kill -KILL $PPID' TERM; kill -INT $PPID; sleep 60"]
env = ["PATH"]
grace = "10m"
"#;

/// A pipe that takes nothing more, and its end to read, which keeps it open.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("it does not wait");
    while writer.write(&[b'.'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("it waits");
    (reader, writer)
}

#[test]
fn a_second_signal_leaves_at_once_also_where_what_is_said_is_not_read() {
    let (_reader, full) = full_pipe();
    for errors in [Stdio::null(), full.into()] {
        let bench = Bench::empty();
        bench.write("workflow.toml", TWICE);
        let mut command = bench.command("run workflow.toml --json");
        let said = Said::new(command.stderr(errors).output().expect("it starts"));
        assert_eq!(said.code, 143, "{}", said.out);
        assert!(!said.lines().iter().any(|event| event["event"] == "run_finished"));
        assert_eq!(bench.runs()[0].1["status"], "running");
    }
}

#[test]
fn a_killed_run_goes_on_and_a_second_process_is_refused_meanwhile() {
    let bench = Bench::small();
    let (code, _) = stopped_by(&bench, "KILL");
    assert_eq!(code, 137);
    let line = "run workflow.toml --json --set stages.train.steps=1000000";
    let mut child =
        bench.command(line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let resumed: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!(
        (resumed["event"].as_str(), resumed["reason"].as_str()),
        (Some("run_resumed"), Some("it was killed"))
    );
    let second = bench.fp8flow("run workflow.toml --set stages.train.steps=1000000");
    assert_eq!(second.code, 74);
    assert!(second.err.contains("is in use by another process (process "), "{}", second.err);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// A run that is sent SIGUSR1 as soon as `stage` begins.
fn stopped_in(bench: &Bench, stage: &str) -> i32 {
    let mut child: Child = bench
        .command("run workflow.toml --json")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut sent = false;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        if event["event"] == "stage_started" && event["stage"] == stage {
            sent = Command::new("kill")
                .args(["-USR1", &child.id().to_string()])
                .status()
                .expect("kill")
                .success();
        }
    }
    assert!(sent, "{stage} did not begin");
    child.wait().expect("it ends").code().expect("a code")
}

#[test]
fn a_signal_ends_a_run_in_whatever_stage_it_is() {
    let test = "[stages.test]\nuses = \"eval\"\nmodel = \"train\"\ntokens = \"tokens\"\nsplit = \"train\"\n\n[stages.export]";
    for stage in ["records", "tokens", "model", "layers", "train", "test"] {
        // A run of its own: a small stage may be over before the signal comes, and the next is stopped in its place.
        let bench = Bench::small();
        let workflow = String::from_utf8(bench.read("workflow.toml")).expect("text");
        bench.write("workflow.toml", &workflow.replacen("[stages.export]", test, 1));
        assert_eq!(stopped_in(&bench, stage), 75, "{stage}");
        let (_, run) = bench.runs().pop().expect("a run");
        assert_eq!(run["status"], "interrupted", "{stage}");
        assert!(!bench.path("out").exists());
        let said = bench.fp8flow("run workflow.toml --quiet");
        assert_eq!((said.code, bench.runs().len()), (0, 1), "{stage}: {}", said.err);
    }
}
