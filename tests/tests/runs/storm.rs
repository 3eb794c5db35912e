//! A whole workflow, killed at random moments from its first breath to its last, again and again: it ends with the same
//! bytes, and nothing is left lying about.
//!
//! `FP8FLOW_STORM_KILLS` says how often (12 by default), `FP8FLOW_STORM_SEED` where the random moments begin.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fp8flow_kernels::philox::Philox;

use crate::disk::left_aside;
use crate::program::Bench;
use crate::reproducible::expected_of;

const STAGES: [&str; 7] = ["records", "tokens", "model", "layers", "train", "eval", "export"];

fn workflow(precision: &str) -> Bench {
    Bench::tiny().with("steps = 2", &format!("steps = 8\nprecision = \"{precision}\"")).with(
        "[stages.export]",
        "[stages.eval]\nuses = \"eval\"\nmodel = \"train\"\ntokens = \"tokens\"\n\n[stages.export]",
    )
}

/// Where a killed process was: the first stage without a result.
fn at(bench: &Bench) -> &'static str {
    let runs = fs::read_dir(bench.path("runs")).into_iter().flatten().flatten();
    let run = runs.map(|run| run.path()).find(|run| run.join("run.json").exists() && !run.is_symlink());
    let Some(run) = run else { return "start" };
    STAGES.into_iter().find(|stage| !run.join(stage).join("stage.json").exists()).unwrap_or("end")
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_storm_of_kills_changes_no_byte_and_leaves_nothing_behind() {
    let kills = number("FP8FLOW_STORM_KILLS", 12);
    let seed = number("FP8FLOW_STORM_SEED", 1);
    let random = Philox::new(seed, "storm");
    let (mut killed, mut starts, mut runs) = (0, 0, 0);
    let mut hits: BTreeMap<&str, u64> = BTreeMap::new();
    let straight = ["bf16", "f32"].map(|precision| {
        let bench = workflow(precision);
        let expected = expected_of(&bench);
        // The second is not the first to load the program.
        let began = Instant::now();
        assert_eq!(bench.run(&["--fresh"]).code, Some(0));
        (precision, expected, began.elapsed())
    });
    while killed < kills {
        let (precision, expected, whole) = &straight[runs % 2];
        let bench = workflow(precision);
        loop {
            let said = fs::File::create(bench.path("said.txt")).unwrap();
            let mut child =
                bench.command(&["run", "workflow.toml"]).stdout(Stdio::null()).stderr(said).spawn().unwrap();
            starts += 1;
            // Past the end of a straight run too, for what is slower after a kill.
            let moment = if killed < kills {
                whole.mul_f64(1.1 * random.below(0, starts, 1 << 32) as f64 / 2_f64.powi(32))
            } else {
                Duration::MAX
            };
            let began = Instant::now();
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if began.elapsed() >= moment {
                    break None;
                }
                sleep(Duration::from_micros(500));
            };
            if let Some(status) = ended {
                let said = fs::read_to_string(bench.path("said.txt")).unwrap();
                assert_eq!(status.code(), Some(0), "seed {seed}, after {killed} kills: {said}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            *hits.entry(at(&bench)).or_default() += 1;
            if bench.is_finished() {
                // The kill came after the last word. What it left is swept by the next run, which has nothing to do.
                let again = bench.run(&[]);
                assert_eq!(again.code, Some(0), "{}", again.all());
                break;
            }
        }
        runs += 1;
        let last = newest(&bench);
        assert_eq!(bench.result_of(&last), *expected, "seed {seed}, after {killed} kills");
        let latest = fs::canonicalize(bench.path("runs/latest"));
        assert!(
            latest.as_ref().is_ok_and(|latest| *latest == last.canonicalize().unwrap()),
            "seed {seed}, after {killed} kills: {latest:?}, {:?}",
            fs::read_dir(bench.path("runs")).unwrap().collect::<Vec<_>>()
        );
        let left = left_aside(bench.folder.path());
        assert!(left.is_empty(), "seed {seed}, after {killed} kills: {left:?}");
    }
    println!("{killed} kills, {starts} starts, {runs} runs, all with the same bytes; hits: {hits:?}");
}

/// The run that was begun last.
fn newest(bench: &Bench) -> PathBuf {
    let runs = fs::read_dir(bench.path("runs")).unwrap().flatten().map(|run| run.path());
    let sequence = |run: &PathBuf| {
        let record = fs::read_to_string(run.join("run.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&record).ok()?["sequence"].as_u64()
    };
    runs.filter(|run| !run.is_symlink()).max_by_key(sequence).unwrap()
}
