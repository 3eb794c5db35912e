//! An entry of `runs/.store`: a small run looks it up, and takes the result from there where it believes it.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fp8flow_flow::{Plan, Run, RunOptions, State, Workflow, explain, gc};
use serde_json::Value;

use crate::engine::REGISTRY;
use crate::{Bound, Room, Target};

/// The entry's tree, twice, and the small run.
pub(crate) const TARGET: Target =
    Target { name: "store", read, bound: Bound { factor: 256, constant: 4 * super::MIB } };

const WORKFLOW: &str = "[backend]\nplugin = \"none\"\n[stages.records]\nuses = \"data.load\"\npath = \"rows.jsonl\"\nformat = \"tokens\"\n\
    [stages.tokens]\nuses = \"data.tokenize\"\nrecords = \"records\"\n";
const ROWS: &[u8] = b"{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [3, 2, 1]}\n";

/// What the store holds after the small run: every file of it, and which of them is the entry of `tokens`.
struct Filled {
    plan: Plan,
    files: Vec<(PathBuf, Vec<u8>)>,
    entry: PathBuf,
}

thread_local! {
    static FILLED: OnceCell<Filled> = const { OnceCell::new() };
}

fn read(room: &Room, input: &[u8]) {
    FILLED.with(|filled| {
        let filled = filled.get_or_init(|| Filled::of(room));
        filled.look_up(input);
    });
}

impl Filled {
    fn of(room: &Room) -> Self {
        room.write("rows.jsonl", ROWS);
        let path = room.path("workflow.toml");
        let workflow = Workflow::parse(&path, WORKFLOW, [""; 0]).expect("TOML");
        let plan = workflow.plan(&REGISTRY).expect("a workflow");
        run(&plan);
        let runs = room.path("runs");
        clear(&runs);
        let mut files = Vec::new();
        collect(&runs, &mut files);
        let of_tokens = |(path, bytes): &&(PathBuf, Vec<u8>)| {
            path.starts_with(runs.join(".store/entries"))
                && serde_json::from_slice::<Value>(bytes).is_ok_and(|entry| entry["stage"] == "tokens")
        };
        let entry = files.iter().find(of_tokens).expect("an entry of `tokens`").0.clone();
        Self { plan, files, entry }
    }

    fn look_up(&self, input: &[u8]) {
        let runs = self.plan.folder.join("runs");
        for (path, bytes) in &self.files {
            let bytes = if *path == self.entry { input } else { bytes };
            let _ = fs::remove_file(path);
            fs::create_dir_all(path.parent().unwrap_or(&runs)).expect("folders are made");
            fs::write(path, bytes).expect("a file is written");
        }
        let explained = explain(&self.plan, &REGISTRY, &RunOptions::default()).expect("nothing is wrong");
        let _ = gc::collect(&runs, None, true);
        if explained.iter().all(|stage| stage.state == State::Cached) {
            run(&self.plan);
            clear(&runs);
        }
    }
}

/// A run with a bad entry still comes to its end: it does the stage itself.
fn run(plan: &Plan) {
    let run = Run::open(plan, RunOptions::default()).expect("a run is opened");
    run.execute(&REGISTRY, Arc::new(|_: &_| ()), &Arc::default()).expect("a run finishes");
}

/// Removes the runs, but not the store.
fn clear(runs: &Path) {
    for entry in fs::read_dir(runs).expect("runs").flatten().filter(|entry| entry.file_name() != ".store") {
        let path = entry.path();
        let removed = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
        removed.expect("a run is removed");
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
}
