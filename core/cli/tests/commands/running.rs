//! Whole runs.

use crate::bench::{Bench, json};

#[test]
fn a_run_tells_its_stages_and_where_everything_is() {
    let bench = Bench::small();
    let said = bench.fp8flow("run workflow.toml --threads 1");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for line in [
        "[1/6] records (data.load)\n",
        "      step 3 of 3, loss ",
        "[6/6] export (checkpoint.export)\n",
        "finished after ",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    let (folder, run) = bench.runs().pop().expect("a run");
    assert!(said.out.contains(&format!("everything is in {}\n", folder.display())), "{}", said.out);
    assert_eq!((run["status"].as_str(), run["exit_code"].as_u64()), (Some("finished"), Some(0)));
    assert_eq!(run["environment"]["threads"], 1);
    assert!(run["environment"]["isa"].is_string() && run["environment"]["argv"][1] == "run");
    assert!(bench.path("out/config.json").exists() && bench.path("out/tokenizer.json").exists());
    assert!(!said.out.contains('\x1b'));

    // A finished run is done: the next is another.
    assert_eq!(bench.fp8flow("run workflow.toml").code, 0);
    assert_eq!(bench.runs().len(), 2);
}

#[test]
fn a_run_is_events_under_json_and_the_report_under_quiet() {
    let bench = Bench::small();
    let said = bench.fp8flow("run workflow.toml --json --runs elsewhere");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let events = said.lines();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("run_started", "run_finished"));
    assert_eq!(names.iter().filter(|name| **name == "metrics").count(), 3);
    assert!(events.iter().all(|event| event["time"].is_string()));
    assert!(bench.path("elsewhere").is_dir() && !bench.path("runs").exists());

    let said = bench.fp8flow("run workflow.toml --quiet");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("loss: ") && !said.out.contains("[1/6]"), "{}", said.out);
}

#[test]
fn a_stage_that_fails_is_shown_and_recorded_and_the_run_goes_on_once_it_is_mended() {
    let bench = Bench::small();
    let data = bench.read("quickstart/dates.json");
    bench.write("quickstart/dates.json", "[ { \"instruction\": ");
    let said = bench.fp8flow("run workflow.toml");
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("error: stage `records` failed: ") && said.err.contains("  run: "),
        "{}",
        said.err
    );
    let (folder, run) = bench.runs().pop().expect("a run");
    assert_eq!((run["status"].as_str(), run["exit_code"].as_u64()), (Some("failed"), Some(1)));
    assert!(!folder.join("records/stage.json").exists() && !bench.path("out").exists());

    std::fs::write(bench.path("quickstart/dates.json"), data).expect("written");
    let said = bench.fp8flow("run workflow.toml");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("goes on, in ") && said.out.contains("stage `records` failed"), "{}", said.out);
    assert_eq!(json(&folder.join("run.json"))["attempts"], 2);
}

#[test]
fn a_place_that_cannot_be_written_is_exit_74() {
    let bench = Bench::small();
    bench.write("taken", "a file");
    let said = bench.fp8flow("run workflow.toml --runs taken");
    assert_eq!(said.code, 74, "{}", said.err);
    assert!(said.err.starts_with("error: cannot create "), "{}", said.err);
}
