//! The page of a run, and the files that other programs watch.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::bench::{Bench, json};

const ALL: &str = "--export tensorboard,trainer_log,svg";

fn text(bench: &Bench, name: &str) -> String {
    String::from_utf8(bench.read(name)).expect("text")
}

/// The event file in `folder`.
fn events(bench: &Bench, folder: &str) -> Vec<u8> {
    let names = std::fs::read_dir(bench.path(folder)).expect("a folder").flatten();
    let mut events =
        names.filter(|name| name.file_name().to_string_lossy().starts_with("events.out.tfevents."));
    let bytes = std::fs::read(events.next().expect("an event file").path()).expect("it is there");
    assert!(events.next().is_none());
    bytes
}

#[test]
fn a_run_that_fails_has_a_page_too_and_one_is_written_where_it_is_wanted() {
    let bench = Bench::small();
    let ran = bench.fp8flow("run workflow.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("the report is runs/"), "{}", ran.out);
    let page = text(&bench, "runs/latest/report.html");
    for words in ["quickstart <span class=\"badge finished\">", "0 of 8", "fp8flow verify ", "schedule.kind"]
    {
        assert!(page.contains(words), "{words}");
    }
    let said = bench.fp8flow("report latest --out page.html");
    assert_eq!((said.code, said.out.trim_end().ends_with("is in page.html")), (0, true), "{}", said.out);
    let body = |page: &str| page.split("<footer>").next().unwrap_or_default().to_owned();
    assert!(body(&text(&bench, "page.html")) == body(&page), "the same page, whoever writes it");
    let object = &bench.fp8flow("report latest --json").lines()[0];
    assert!(object["report"].as_str().is_some_and(|path| path.ends_with("/report.html")), "{object}");

    // Its data are others, and no records.
    bench.write("quickstart/dates.json", "[{\"instruction\": \"<i>\", \"output\": 7}]");
    let failed = bench.fp8flow("run workflow.toml --set stages.train.steps=4 --set workflow.name=<b>");
    assert_eq!(failed.code, 1, "{}", failed.err);
    let page = text(&bench, "runs/latest/report.html");
    assert!(page.contains("<h1>&lt;b&gt; <span class=\"badge failed\">failed"), "{page}");
    assert!(page.contains("<td class=\"state failed\">failed</td>") && page.contains("not begun"), "{page}");
    assert_eq!(bench.fp8flow("report nobody").code, 2);
    assert_eq!(bench.fp8flow("report latest --out no/such/folder.html").code, 74);
}

#[test]
fn what_other_programs_watch_lies_beside_the_results_and_can_be_written_later() {
    let bench = Bench::small();
    let ran = bench.fp8flow(&format!("run workflow.toml {ALL}"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines = text(&bench, "runs/latest/logs/train/trainer_log.jsonl");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[2]["current_steps"], &lines[2]["total_steps"]), (&3.into(), &3.into()));
    assert_eq!((&lines[2]["percentage"], &lines[2]["remaining_time"]), (&100.0.into(), &"0:00:00".into()));
    let measured = text(&bench, "runs/latest/train/metrics.jsonl");
    let last: serde_json::Value =
        serde_json::from_str(measured.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&lines[2]["loss"], &lines[2]["lr"]), (&last["loss"], &last["lr"]));
    assert!(text(&bench, "runs/latest/logs/train/training_loss.svg").contains("<polyline"));

    let later = bench.fp8flow(&format!("metrics latest {ALL} --out other"));
    assert_eq!((later.code, later.out.lines().count()), (0, 3), "{}{}", later.out, later.err);
    for name in ["trainer_log.jsonl", "training_loss.svg"] {
        assert_eq!(
            bench.read(&format!("other/train/{name}")),
            bench.read(&format!("runs/latest/logs/train/{name}"))
        );
    }
    let written = events(&bench, "other/train");
    assert!(written.windows(13).any(|bytes| bytes == b"brain.Event:2"));
    assert_eq!(written.windows(10).filter(|bytes| bytes == b"train/loss").count(), 3);
    assert_eq!(events(&bench, "runs/latest/logs/train"), written);

    // They are no part of a result: nothing of the run is done again, and it verifies.
    let again = bench.fp8flow("run workflow.toml");
    assert_eq!((again.code, again.out.matches("made by run").count()), (0, 6), "{}", again.out);
    assert_eq!(bench.fp8flow("metrics latest --out other").code, 2);
    assert_eq!(bench.fp8flow("metrics latest --export wandb").code, 2);
}

#[test]
fn a_run_at_work_is_followed_to_its_end() {
    let bench = Bench::small();
    let mut run = bench.command("run workflow.toml --set stages.train.steps=1500");
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let began = Instant::now();
    while bench.fp8flow("metrics latest").code != 0 {
        assert!(began.elapsed() < Duration::from_secs(50), "it does not train");
        std::thread::sleep(Duration::from_millis(20));
    }
    let followed = bench.fp8flow("metrics latest --follow --export trainer_log");
    assert_eq!(followed.code, 0, "{}", followed.err);
    assert!(run.wait().expect("it ends").success());
    let lines = text(&bench, "runs/latest/logs/train/trainer_log.jsonl");
    assert_eq!(lines.lines().count(), 1500);
    let steps = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert!(
        steps.zip(1_u64..).all(|(line, step)| line["current_steps"] == step && line["total_steps"] == 1500)
    );
    let run = json(&bench.path("runs/latest/run.json"));
    assert_eq!(run["status"], "finished");
}
