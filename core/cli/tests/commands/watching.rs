//! The commands that look at runs: finished, failed, killed, and at work in this moment.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::bench::{Bench, Said};

/// Every file below `folder` with its size and when it was written.
fn state(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let about = entry.metadata().expect("it is there");
        if about.is_dir() {
            found.extend(state(&entry.path()));
        }
        found.insert(entry.path(), (about.len(), about.modified().expect("a time")));
    }
    found
}

fn expect(said: &Said, words: &[&str]) {
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for words in words {
        assert!(said.out.contains(words), "no `{words}` in\n{}", said.out);
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill").success());
}

/// The exit code of `child`, which ends within a few seconds.
fn end_of(child: &mut Child) -> i32 {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status.code().expect("a code");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `status` says as soon as it tells of steps.
fn at_work(bench: &Bench) -> Said {
    let began = Instant::now();
    loop {
        let status = bench.fp8flow("status");
        if status.out.contains(" left\n") {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{}{}", status.out, status.err);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_finished_run_is_looked_at_and_not_touched() {
    let bench = Bench::small();
    let ran = bench.fp8flow("run workflow.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let (folder, run) = bench.runs().pop().expect("a run");
    let id = run["id"].as_str().expect("an id");
    let before = state(&bench.path("runs"));

    let list = bench.fp8flow("runs list");
    expect(&list, &[id, "quickstart", "finished", "started (UTC)"]);
    assert!(!list.out.contains("goes on with"), "{}", list.out);
    let rows = &bench.fp8flow("runs list --json").lines()[0]["runs"];
    assert_eq!((rows[0]["id"].as_str(), rows[0]["status"].as_str()), (Some(id), Some("finished")));
    assert!(rows[0]["at"].is_null() && rows[0]["seconds"].as_f64() > Some(0.0), "{rows}");

    let status = bench.fp8flow("status");
    expect(
        &status,
        &[id, "finished, ", "exit code 0", "done  train", "checkpoints of train: step 3, in runs/"],
    );
    assert!(!status.out.contains("not yet") && !status.out.contains("goes on"), "{}", status.out);
    for name in [id, &id[..10], "latest", &format!("runs/{id}"), &format!("{}", folder.display())] {
        assert_eq!(bench.fp8flow(&format!("status {name}")).out, status.out, "{name}");
    }
    let object = &bench.fp8flow("status --json").lines()[0];
    assert_eq!((object["status"].as_str(), object["exit_code"].as_u64()), (Some("finished"), Some(0)));
    let train = &object["stages"][4];
    assert_eq!((train["name"].as_str(), train["state"].as_str()), (Some("train"), Some("done")));
    assert_eq!(train["checkpoints"], serde_json::json!([3]));

    // What `run` printed, apart from what it adds of its own.
    let logs = bench.fp8flow("logs");
    assert_eq!(logs.code, 0);
    let own = format!("the report is runs/{id}/report.html\neverything is in {}\n", folder.display());
    assert_eq!(format!("{}{own}", logs.out), ran.out);
    let one = bench.fp8flow("logs --stage train");
    expect(&one, &["[5/6] train (train.sft)\n", "      step 3 of 3, loss "]);
    assert!(!one.out.contains("records"), "{}", one.out);
    let raw = std::fs::read_to_string(folder.join("events.jsonl")).expect("text");
    assert_eq!(bench.fp8flow("logs --json").out, raw);
    assert_eq!(bench.fp8flow("logs -f").out, logs.out);

    let metrics = bench.fp8flow(&format!("metrics {id}"));
    expect(&metrics, &["(train), 3 steps", "grad_norm", "tokens/s", "best: loss "]);
    assert_eq!(metrics.out.lines().filter(|line| line.starts_with("     ")).count(), 3, "{}", metrics.out);
    let two = bench.fp8flow(&format!("metrics latest {id} --plot loss.svg"));
    expect(&two, &["A: ", "B: ", "loss A", "loss B", "the curves are in loss.svg"]);
    let svg = String::from_utf8(bench.read("loss.svg")).expect("text");
    assert!(svg.starts_with("<svg") && svg.contains(id) && svg.contains("<polyline"), "{svg}");
    let curves = &bench.fp8flow(&format!("metrics {id} --json")).lines()[0]["curves"];
    assert_eq!(curves[0]["steps"].as_array().map(Vec::len), Some(3));
    assert_eq!(curves[0]["run"], id);

    assert_eq!(state(&bench.path("runs")), before);
}

#[test]
fn a_killed_run_is_told_from_one_at_work_and_says_how_it_goes_on() {
    let bench = Bench::small();
    let line = "run workflow.toml --json --set stages.train.steps=1000000";
    let mut child =
        bench.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    at_work(&bench);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let (_, run) = bench.runs().pop().expect("a run");
    assert_eq!(run["status"], "running");
    let goes_on = "goes on with: fp8flow run workflow.toml --set stages.train.steps=1000000";
    expect(&bench.fp8flow("runs list"), &["killed", "train", goes_on]);
    let words =
        ["killed, ", "done     tokens", "stopped  train", " of 1000000, loss ", "not yet  export", goes_on];
    expect(&bench.fp8flow("status"), &words);
    assert_eq!(bench.fp8flow("status --json").lines()[0]["status"], "killed");
    // There is nobody to wait for.
    let logs = bench.fp8flow("logs --follow");
    expect(&logs, &["[5/6] train"]);
    assert!(logs.err.contains("is gone without a word"), "{}", logs.err);
    expect(&bench.fp8flow("metrics latest"), &["best: loss "]);
}

#[test]
fn a_run_at_work_is_followed_until_it_ends() {
    let bench = Bench::small();
    let piped = |line: &str| {
        bench.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let mut run = piped("run workflow.toml --json --set stages.train.steps=1000000");
    let mut events = BufReader::new(run.stdout.take().expect("it is piped")).lines();
    assert!(events.any(|line| line.is_ok_and(|line| line.contains("\"event\":\"metrics\""))));
    let drain = std::thread::spawn(move || events.for_each(drop));
    let worker = format!("running (process {})", run.id());

    expect(&bench.fp8flow("runs list"), &["running", "train"]);
    let status = at_work(&bench);
    expect(
        &status,
        &[&worker, "running  train", " of 1000000, loss ", " tokens/s, ", " left\n", "not yet  export"],
    );
    let stage = &bench.fp8flow("status --json").lines()[0]["stages"][4];
    assert!(stage["state"] == "running" && stage["seconds_left"].as_f64() > Some(0.0), "{stage}");
    expect(&bench.fp8flow("logs"), &["[5/6] train"]);

    // Whoever follows may leave: by a signal, or by closing the pipe.
    let first = |child: &mut Child| {
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        assert!(line.starts_with("run "), "{line}");
        out
    };
    let mut left = piped("logs -f");
    let out = first(&mut left);
    send("-INT", &left);
    assert_eq!(end_of(&mut left), 0);
    drop(out);
    let mut closed = piped("logs -f --stage export");
    drop(closed.stdout.take());
    assert_eq!(end_of(&mut closed), 0);
    let mut watching = piped("logs -f");
    let mut out = first(&mut watching);

    send("-USR1", &run);
    assert_eq!(end_of(&mut run), 75);
    drain.join().expect("read");
    assert_eq!(end_of(&mut watching), 0);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert!(
        rest.contains("stopped: stage `train`: after step ") && rest.contains("interrupted after "),
        "{rest}"
    );
    expect(
        &bench.fp8flow("status"),
        &["interrupted, ", "exit code 75", "stopped  train", "the state is saved", "goes on with: "],
    );
}

#[test]
fn a_failed_run_shows_its_error_and_the_stages_that_wait() {
    let bench = Bench::small();
    bench.write("quickstart/dates.json", "[ { \"instruction\": ");
    assert_eq!(bench.fp8flow("run workflow.toml").code, 1);
    expect(&bench.fp8flow("runs list"), &["failed", "records", "goes on with: fp8flow run workflow.toml\n"]);
    let words = [
        "failed, ",
        "exit code 1",
        "failed   records",
        "not yet  tokens",
        "error: stage `records` failed: ",
        "once that is mended",
    ];
    expect(&bench.fp8flow("status"), &words);
    expect(&bench.fp8flow("logs"), &["error: stage `records`: ", "failed after "]);
    let said = bench.fp8flow("metrics latest");
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("no training stage of run"), "{}", said.err);
}

#[test]
fn a_run_that_is_not_there_is_exit_2_and_a_damaged_one_names_its_file() {
    let bench = Bench::small();
    for command in ["runs list", "status", "logs", "metrics x"] {
        let said = bench.fp8flow(command);
        assert_eq!(said.code, 2, "{command}: {}", said.err);
        assert!(said.err.contains("there is no folder of runs at runs"), "{}", said.err);
    }
    assert_eq!(bench.fp8flow("run workflow.toml --quiet").code, 0);
    assert_eq!(bench.fp8flow("run workflow.toml --quiet").code, 0);
    let [(old, _), (new, _)] = &bench.runs()[..] else { panic!("two runs") };
    for (line, words) in [
        ("status nothing", "there is no run `nothing` in runs"),
        ("status 2", "2 runs in runs begin with `2`"),
        ("status quickstart", "quickstart is no run: it holds no run.json"),
        ("logs --stage nothing", "has no stage `nothing`"),
        ("metrics latest --stage nothing", "no training stage `nothing`"),
        ("metrics", "required"),
    ] {
        let said = bench.fp8flow(line);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{line}");
        assert!(said.err.contains(words), "{line}: {}", said.err);
    }
    let error = &bench.fp8flow("status nothing --json").lines()[0];
    assert_eq!((error["class"].as_str(), error["exit_code"].as_u64()), (Some("usage"), Some(2)));

    for (file, text, command, words) in [
        ("plan.json", "{ \"format\": 1", "status", "plan.json is damaged: not a JSON file"),
        ("train/metrics.jsonl", "{\"step\":1}\n", "metrics latest", "metrics.jsonl is damaged: line 1"),
        ("events.jsonl", "all is well\n", "logs", "events.jsonl is damaged: line 1 is no event"),
        (
            "train/stage.json",
            "{ \"format\": 99 }",
            "status",
            "stage.json has format 99; this version of fp8flow knows ",
        ),
        ("run.json", "{ \"format\": 2 }", "status latest", "run.json is damaged: missing field"),
    ] {
        let path = new.join(file);
        let kept = std::fs::read(&path).expect("it is there");
        std::fs::write(&path, text).expect("written");
        let said = bench.fp8flow(command);
        assert_eq!(said.code, 74, "{file}: {}{}", said.out, said.err);
        assert!(said.err.contains(words), "{file}: {}", said.err);
        if file == "run.json" {
            // The other runs can be looked at.
            let list = bench.fp8flow("runs list");
            expect(&list, &[&old.file_name().expect("a name").to_string_lossy(), "finished"]);
            assert!(list.err.contains(words), "{}", list.err);
        }
        std::fs::write(&path, kept).expect("written");
    }
}
