//! A run's folder, as `runs`, `status`, `logs`, `metrics`, `diff`, `verify` and `gc` read it.

use std::fs;

use fp8flow_flow::{Events, Recorded, Seen, every_run, gc, runs, written};
use fp8flow_train::{StepMetrics, compare, metrics, read_digests};
use serde_json::Value;

use crate::engine::REGISTRY;
use crate::parts::parts;
use crate::{Bound, Room, Target};

/// JSON trees, a line or a file at a time; the workflow of the run is planned again as in the target of that name.
pub(crate) const TARGET: Target =
    Target { name: "runs", read, bound: Bound { factor: 2048, constant: 2 * super::MIB } };

const FIRST: &str = "run.json";
const FILES: [&str; 8] = [
    FIRST,
    "crash.json",
    "plan.json",
    "events.jsonl",
    "workflow.toml",
    "train/stage.json",
    "train/metrics.jsonl",
    "train/digests.jsonl",
];

fn read(room: &Room, input: &[u8]) {
    let run = room.fill("runs/one", &FILES, &parts(FIRST, input));
    let folder = room.path("runs");
    let _ = (every_run(&folder).map(|runs| runs.len()), runs(&folder).len());
    let _ = gc::collect(&folder, Some(0), true);
    if let Ok(seen) = Seen::look(&run) {
        let _ = (seen.lasted(), seen.at(), seen.stage_names());
        if let Ok(stages) = seen.stages() {
            stages.all.iter().for_each(|stage| drop(stage.json()));
        }
    }
    let mut events = Events::of(&run);
    while let Ok(Some(line)) = events.line() {
        let _ = events.entry(&line);
    }
    let train = run.join("train");
    let _ = (written(&train), metrics::read::<StepMetrics>(&train.join("metrics.jsonl")));
    let _ = metrics::tail::<StepMetrics>(&train.join("metrics.jsonl"), 64);
    let _ = read_digests(&train).map(Iterator::count);
    let _ = compare([&train, &train]).map(|found| found.parting.map(|parting| parting.words()));
    let _ = Recorded::read(&run, &REGISTRY, |_| Value::Null);
    let _ = fs::remove_file(run.join("LOCK"));
}
