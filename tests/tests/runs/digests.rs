//! The chain of digests, and what is told from it: `diff` between two runs, `verify` of one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use fp8flow_kernels::Isa;
use serde_json::Value;

use crate::program::{Bench, Ended};
use crate::reproducible::{expected_of, kill_until_it_ends};

const FIRST: &str = "model.embed_tokens.weight";

fn chain(bench: &Bench) -> String {
    std::fs::read_to_string(bench.run_folder().join("train/digests.jsonl")).unwrap()
}

fn ok(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.all());
}

fn last_line(ended: &Ended) -> Value {
    serde_json::from_str(ended.out.lines().last().unwrap()).unwrap()
}

/// Everything in a folder but times of access: names, sizes and contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

/// Turns a bit of the first element of a tensor in a safetensors file.
fn flip(path: &Path, tensor: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let start = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + start] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn threads_instruction_sets_and_kills_change_no_digest() {
    let straight = Bench::new();
    let result = expected_of(&straight);
    let expected = chain(&straight);
    assert_eq!(expected.lines().count(), 5, "the start and four steps");
    for threads in ["1", "3"] {
        let bench = Bench::new();
        ok(&bench.run(&["--threads", threads]));
        assert_eq!(chain(&bench), expected, "{threads} threads");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let bench = Bench::new();
        ok(&bench.command(&["run", "workflow.toml"]).env("FP8FLOW_ISA", isa.name()).output().unwrap().into());
        assert_eq!(chain(&bench), expected, "{}", isa.name());
    }
    let killed = Bench::new();
    kill_until_it_ends(&killed, &result, Duration::from_millis(300));
    assert_eq!(chain(&killed), expected, "killed");
}

#[test]
fn diff_of_equal_runs_says_so_and_finds_the_step_and_tensor_where_others_part() {
    let bench = Bench::new();
    ok(&bench.run(&["--threads", "1"]));
    ok(&bench.run(&["--fresh", "--runs", "others", "--threads", "2"]));
    let other = bench.path("others/latest").display().to_string();
    let same = bench.fp8flow(&["diff", "latest", &other]);
    ok(&same);
    assert!(same.out.contains("train: the same bits for 4 steps"), "{}", same.out);
    assert!(same.out.contains("threads: 1 → 2"), "{}", same.out);

    // The warmup is the same for two steps, and then another rate is reached.
    ok(&bench.run(&["--runs", "slow", "--set", "stages.train.schedule.kind=linear"]));
    let differ = bench.fp8flow(&["diff", "latest", "slow/latest", "--json"]);
    assert_eq!(differ.code, Some(6), "{}", differ.all());
    let found = last_line(&differ);
    let train = found["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "train").unwrap();
    let rates = |folder: &str| -> Vec<f64> {
        let text = std::fs::read_to_string(bench.path(folder).join("latest/train/metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["lr"].as_f64().unwrap())
            .collect()
    };
    let (a, b) = (rates("runs"), rates("slow"));
    let first = a.iter().zip(&b).position(|(a, b)| a != b).unwrap() as u64 + 1;
    assert!(first > 1, "{a:?} {b:?}");
    let parting = &train["training"]["parting"];
    assert_eq!((&parting["step"], &parting["tensors"][0]), (&first.into(), &FIRST.into()), "{parting}");
    assert_eq!(parting["metrics"], serde_json::json!(["lr"]), "the loss is that of the weights before");
    assert!(!found["parameters"].as_array().unwrap().is_empty());

    ok(&bench.run(&["--runs", "seed", "--set", "workflow.seed=8"]));
    let differ = bench.fp8flow(&["diff", "latest", "seed/latest"]);
    assert_eq!(differ.code, Some(6), "{}", differ.all());
    assert!(differ.out.contains("workflow.seed: 7 → 8"), "{}", differ.out);
    assert!(differ.out.contains(&format!("train: before the first step: `{FIRST}`")), "{}", differ.out);

    let nobody = bench.fp8flow(&["diff", "latest", "nobody"]);
    assert_eq!(nobody.code, Some(3), "{}", nobody.all());
    assert!(nobody.err.contains("there is no run `nobody`"), "{}", nobody.err);
}

#[test]
fn a_run_is_verified_whole_and_by_windows_and_nothing_of_it_changes() {
    let bench = Bench::new().with("keep = 2", "keep = 9");
    let words = ["--set", "stages.train.optimizer.weight_decay=0.01"];
    ok(&bench.run(&words));
    // What it was made with is in the run.
    bench.write("workflow.toml", "not what it was");
    let before = [contents(&bench.path("runs")), contents(&bench.path("out"))];
    let whole = bench.fp8flow(&["verify", "latest", "--threads", "1"]);
    ok(&whole);
    assert!(whole.out.contains("6 stages of"), "{}", whole.out);
    assert!(whole.out.contains("every bit is the same"), "{}", whole.out);
    for window in ["0..2", "2..3", "3..4"] {
        let ended = bench.fp8flow(&["verify", "latest", "--window", window, "--json"]);
        ok(&ended);
        let told = last_line(&ended);
        assert_eq!((&told["event"], &told["same"]), (&"run_verified".into(), &true.into()), "{told}");
    }
    ok(&bench.fp8flow(&["verify", "latest", "--stage", "tokens"]));
    assert_eq!([contents(&bench.path("runs")), contents(&bench.path("out"))], before);
    assert!(bench.fp8flow(&["verify", "latest", "--window", "7..9"]).err.contains("no digest of step 9"));
    std::fs::remove_dir_all(bench.run_folder().join("train/checkpoints/step-00000002")).unwrap();
    let none = bench.fp8flow(&["verify", "latest", "--window", "2..4"]);
    assert_eq!(none.code, Some(3), "{}", none.all());
    assert!(none.err.contains("there are: 0 (the start), 1, 3, 4"), "{}", none.err);
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_found_with_step_and_tensor() {
    const TENSOR: &str = "model.layers.1.self_attn.k_proj.weight";
    let bench = Bench::new().with("keep = 2", "keep = 9");
    ok(&bench.run(&[]));
    let checkpoint = bench.run_folder().join("train/checkpoints/step-00000002");
    flip(&checkpoint.join("model.safetensors"), TENSOR);
    let ended = bench.fp8flow(&["verify", "latest", "--window", "2..4", "--json"]);
    assert_eq!(ended.code, Some(6), "{}", ended.all());
    let found = last_line(&ended);
    let first = &found["differences"][0];
    assert_eq!((&first["step"], &first["tensor"]), (&2.into(), &TENSOR.into()), "{found}");

    // The whole run, too: its file is not what it was, and what is made again is.
    let ended = bench.fp8flow(&["verify", "latest", "--stage", "train", "--json"]);
    assert_eq!(ended.code, Some(6), "{}", ended.all());
    let found = last_line(&ended);
    let first = &found["differences"][0];
    assert_eq!((&first["step"], &first["tensor"]), (&2.into(), &TENSOR.into()), "{found}");
}

#[test]
fn a_moment_that_was_changed_with_its_manifest_shows_in_the_step_after() {
    const TENSOR: &str = "model.layers.1.self_attn.k_proj.weight";
    let bench = Bench::new().with("keep = 2", "keep = 9");
    ok(&bench.run(&[]));
    let checkpoint = bench.run_folder().join("train/checkpoints/step-00000002");
    let path = checkpoint.join("optimizer.safetensors");
    let digest = |path: &Path| blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string();
    let old = digest(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let start = header[format!("m.{TENSOR}")]["data_offsets"][0].as_u64().unwrap() as usize;
    // The highest bit of the fraction of the first element.
    bytes[8 + length + start + 2] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let manifest = checkpoint.join("MANIFEST.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace(&old, &digest(&path));
    std::fs::write(&manifest, text).unwrap();
    let ended = bench.fp8flow(&["verify", "latest", "--window", "2..4", "--json"]);
    assert_eq!(ended.code, Some(6), "{}", ended.all());
    let found = last_line(&ended);
    let first = &found["differences"][0];
    assert_eq!((&first["step"], &first["tensor"]), (&3.into(), &TENSOR.into()), "{found}");
}

#[test]
fn changed_inputs_are_named_and_are_not_the_runs_fault() {
    let data = crate::program::quickstart().join("dates.json");
    let bench = Bench::new().with(&data.display().to_string(), "dates.json");
    let text = std::fs::read_to_string(data).unwrap();
    bench.write("dates.json", &text);
    ok(&bench.run(&[]));
    bench.write("dates.json", text.replace("March", "Marsh"));
    let ended = bench.fp8flow(&["verify", "latest"]);
    assert_eq!(ended.code, Some(3), "{}", ended.all());
    assert!(ended.err.contains("dates.json has changed since"), "{}", ended.err);
    // Steps are made from the run's own tokens.
    ok(&bench.fp8flow(&["verify", "latest", "--window", "3..4"]));
}

#[test]
fn a_verification_that_is_stopped_or_killed_leaves_nothing() {
    let bench = Bench::new().with("steps = 4", "steps = 40");
    ok(&bench.run(&[]));
    let hidden = || {
        let entries = std::fs::read_dir(bench.path("runs")).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".verify"))
            .count()
    };
    for (signal, code, left) in [("INT", Some(75), 0), ("KILL", None, 1)] {
        let mut child =
            bench.command(&["verify", "latest"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let training = || {
            let entries = std::fs::read_dir(bench.path("runs")).unwrap();
            entries.map(|entry| entry.unwrap().path()).any(|path| {
                path.file_name().unwrap().to_string_lossy().starts_with(".verify")
                    && path.join("train/metrics.jsonl").exists()
            })
        };
        while !training() {
            assert!(child.try_wait().unwrap().is_none(), "ended before the signal");
            sleep(Duration::from_millis(2));
        }
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), code, "SIG{signal}");
        assert_eq!(hidden(), left, "SIG{signal}");
    }
    ok(&bench.fp8flow(&["verify", "latest", "--stage", "tokens"]));
    assert_eq!(hidden(), 0, "the next one sweeps");
}
