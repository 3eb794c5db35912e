//! A workflow with a matrix, and parts of a workflow: what runs, and what is taken.

use std::fs;

use serde_json::Value;

use crate::program::{Bench, Ended};

/// The events of a run in the order they came.
fn events(ended: &Ended, name: &str) -> Vec<String> {
    let lines = ended.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|event| event["event"] == name)
        .map(|event| event["stage"].as_str().unwrap_or("").to_owned())
        .collect()
}

#[track_caller]
fn succeed(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    ended
}

fn export(bench: &Bench, folder: &str) -> Vec<u8> {
    fs::read(bench.path(folder).join("model.safetensors")).unwrap()
}

#[test]
fn every_point_of_a_matrix_is_a_run_of_its_own_with_the_bytes_it_has_alone() {
    let matrix = "[matrix]\n\"stages.train.optimizer.lr\" = [3e-3, 1e-3]\nbackend.recipe = [\"rowwise\", \"tensorwise\"]\n\n[backend]";
    let bench = Bench::new().with("[backend]", matrix).with("dir = \"out\"", "dir = \"out/{point}\"");
    let ended = succeed(bench.run(&["--json"]));
    assert_eq!(events(&ended, "stage_started").iter().filter(|stage| *stage == "tokens").count(), 1);
    assert_eq!(events(&ended, "stage_started").iter().filter(|stage| *stage == "train").count(), 4);
    let names = [
        "lr=3e-3,recipe=rowwise",
        "lr=3e-3,recipe=tensorwise",
        "lr=1e-3,recipe=rowwise",
        "lr=1e-3,recipe=tensorwise",
    ];
    let listed = bench.fp8flow(&["runs", "list"]);
    for name in names {
        assert!(bench.path("out").join(name).join("config.json").exists(), "{name}");
        assert!(listed.out.contains(&format!("test@{name}")), "{}", listed.out);
    }
    let alone = Bench::new();
    succeed(alone.run(&["--set", "stages.train.optimizer.lr=1e-3", "--set", "backend.recipe=tensorwise"]));
    assert_eq!(export(&bench, "out/lr=1e-3,recipe=tensorwise"), export(&alone, "out"));
    succeed(bench.fp8flow(&["verify", "latest", "--stage", "train"]));
    succeed(bench.fp8flow(&["plan", "workflow.toml", "--check"]));
    succeed(bench.fp8flow(&["lock", "workflow.toml", "--point", names[3]]));
    assert!(bench.path(&format!("workflow.{}.lock", names[3])).exists());
    let one = succeed(bench.run(&["--point", names[3], "--locked", "--json"]));
    assert_eq!(events(&one, "stage_cached").len(), 6);
    let none = bench.run(&["--point", "lr=1e-3,recipe=rowwize"]);
    assert_eq!(none.code, Some(3));
    assert!(none.err.contains("did you mean `lr=1e-3,recipe=rowwise`?"), "{}", none.err);

    let wrong =
        Bench::new().with("[backend]", "[matrix]\nstages.train.optimizer.lr = [1e-3, \"fast\"]\n\n[backend]");
    let said = wrong.fp8flow(&["check", "workflow.toml"]);
    assert_eq!(said.code, Some(3));
    assert!(said.err.contains("workflow.toml:6:36"), "the value itself is named: {}", said.err);
    assert!(!wrong.path("runs").exists());
}

#[test]
fn a_finished_run_has_a_manifest_that_names_every_file_it_read_and_made() {
    let bench = Bench::new();
    succeed(bench.run(&["--set", "stages.train.clip=0.5"]));
    let manifest = fs::read(bench.path("runs/latest/manifest.json")).unwrap();
    let statement: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    let predicate = &statement["predicate"];
    assert_eq!(predicate["fp8flow_tier"], "portable");
    let definition = &predicate["buildDefinition"];
    assert_eq!(definition["externalParameters"]["sets"][0], "stages.train.clip=0.5");
    assert_eq!(definition["externalParameters"]["stages"]["train"]["clip"], 0.5);
    assert_eq!(
        definition["internalParameters"]["sections"]["backend"]["bound"]["plugin"]["name"],
        "torchao-rowwise"
    );
    let digests = |list: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        list.as_array()
            .unwrap()
            .iter()
            .map(|file| (text(&file["name"]), text(&file["digest"]["blake3"])))
            .collect()
    };
    let made = digests(&statement["subject"]);
    for end in [
        "out/config.json",
        "step-00000004/optimizer.safetensors",
        "train/digests.jsonl",
        "tokens/train.safetensors",
    ] {
        let (name, blake3) = made
            .iter()
            .find(|(name, _)| name.ends_with(end))
            .unwrap_or_else(|| panic!("no {end} in {made:?}"));
        let path: std::path::PathBuf =
            if name.starts_with("out/") { bench.path(name) } else { bench.path("runs/latest").join(name) };
        assert_eq!(blake3::hash(&fs::read(path).unwrap()).to_hex().to_string(), *blake3, "{name}");
    }
    let byproducts = digests(&predicate["runDetails"]["byproducts"]);
    assert!(byproducts.iter().any(|(name, _)| name == "train/metrics.jsonl"), "{byproducts:?}");
    let read = digests(&definition["resolvedDependencies"]);
    for end in ["workflow.toml", "dates.json", "tokenizer.json", "config.json"] {
        assert!(read.iter().any(|(name, _)| name.ends_with(end)), "no {end} in {read:?}");
    }
}

#[test]
fn only_a_stage_is_run_and_what_it_takes_must_be_there() {
    let bench = Bench::new();
    let ended = bench.run(&["--only", "tokens"]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.err.contains("stage `records` has no stored result"), "{}", ended.err);
    succeed(bench.run(&["--only", "records"]));
    let ended = succeed(bench.run(&["--only", "tokens", "--json"]));
    assert_eq!(
        (events(&ended, "stage_started"), events(&ended, "stage_cached")),
        (vec!["tokens".into()], vec!["records".into()])
    );
    succeed(bench.fp8flow(&["verify", "latest"]));
    let ended = succeed(bench.run(&["--json"]));
    let mut cached = events(&ended, "stage_cached");
    cached.sort();
    assert_eq!(cached, ["records", "tokens"]);
    let unknown = bench.run(&["--only", "tokns"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.all());
}

#[test]
fn from_a_stage_on_everything_is_done_again_to_the_same_bytes() {
    let bench = Bench::new();
    succeed(bench.run(&[]));
    let before = export(&bench, "out");
    fs::remove_dir_all(bench.path("out")).unwrap();
    let ended = succeed(bench.run(&["--from", "layers", "--json"]));
    assert_eq!(events(&ended, "stage_started"), ["layers", "train", "export"]);
    assert_eq!(events(&ended, "stage_cached").len(), 3);
    assert_eq!(export(&bench, "out"), before);
    assert_eq!(bench.run(&["--from", "nothing"]).code, Some(2));
}
