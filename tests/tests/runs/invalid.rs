//! Bad input: one clear error each, the right exit code, nothing half-written.

use std::os::unix::fs::PermissionsExt as _;

use crate::program::{Bench, quickstart};

/// Runs `bench` and asserts code and words; nothing must have been exported.
fn refuse(bench: &Bench, code: i32, words: &[&str]) {
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(code), "{}", ended.all());
    for words in words {
        assert!(ended.err.contains(words), "no `{words}` in\n{}", ended.err);
    }
    assert!(!bench.path("out").exists(), "something was exported");
    let aside: Vec<_> = std::fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("partial") || name.contains("tmp"))
        .collect();
    assert!(aside.is_empty(), "{aside:?}");
}

/// As [`refuse`] at plan time: exit code 3 and no run begun.
pub(crate) fn invalid(bench: &Bench, words: &[&str]) {
    refuse(bench, 3, words);
    assert!(!bench.path("runs").exists(), "a run was begun");
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_nearest_one() {
    let bench = Bench::new().with("lr = 3e-3", "learning_rate = 3e-3");
    invalid(
        &bench,
        &["unknown key `learning_rate`", "workflow.toml:36:15", "^^^^^^^^^^^^^", "known keys: kind, lr"],
    );
    let bench = Bench::new().with("steps = 4", "stepz = 4");
    invalid(&bench, &["stepz", "workflow.toml:34:1", "did you mean `steps`"]);
}

#[test]
fn a_wrong_type_a_dangling_stage_and_a_cycle_are_all_reported_at_once() {
    let bench = Bench::new()
        .with("steps = 4", "steps = \"four\"")
        .with("model = \"model\"\n\n[stages.train]", "model = \"modle\"\n\n[stages.train]");
    invalid(&bench, &["steps", "whole number", "modle", "did you mean `model`", "2 errors"]);
    let bench = Bench::new().with("model = \"model\"\ntokens", "model = \"export\"\ntokens");
    invalid(&bench, &["in a circle", "`train` waits for `export`", "`export` waits for `train`"]);
    let bench = Bench::new().with("layers = \"layers\"\n", "layers = \"tokens\"\n");
    invalid(&bench, &["tokens", "layers"]);
}

#[test]
fn an_fp8_backend_without_layers_is_no_silent_bf16_run() {
    invalid(&Bench::new().with("layers = \"layers\"\n", ""), &["no `layers`", "plugin = \"none\""]);
}

#[test]
fn a_missing_file_is_named() {
    invalid(&Bench::new().with("/dates.json", "/no-dates.json"), &["no-dates.json"]);
}

#[test]
fn malformed_rows_are_named_by_file_row_and_line() {
    let bench = Bench::new();
    bench.write(
        "rows.jsonl",
        "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": 7, \"output\": \"b\"}\n",
    );
    let path = format!("stages.records.path={}", bench.path("rows.jsonl").display());
    let ended = bench.run(&["--set", &path, "--set", "stages.tokens.held_out=0"]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.err.contains("rows.jsonl: row 2 (line 2)"), "{}", ended.err);
}

#[test]
fn no_example_left_to_train_on_is_an_error() {
    let bench = Bench::new();
    bench.write("rows.json", r#"[{"instruction": "a", "input": "", "output": ""}]"#);
    let path = format!("stages.records.path={}", bench.path("rows.json").display());
    let ended = bench.run(&["--set", &path, "--set", "stages.tokens.held_out=0"]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.err.contains("1 rows") || ended.err.contains("example"), "{}", ended.err);
}

/// A folder with the quickstart's configuration and these weights.
fn loading(bench: Bench, weights: &[u8]) -> Bench {
    let config = std::fs::read(quickstart().join("model/config.json")).unwrap();
    bench.write("base/config.json", config);
    bench.write("base/model.safetensors", weights);
    let data = quickstart();
    let init = format!("uses = \"model.init\"\nconfig = \"{}/model/config.json\"", data.display());
    bench.with(&init, "uses = \"model.load\"\npath = \"base\"")
}

#[test]
fn truncated_and_lying_weights_and_missing_tensors_are_found_before_anything_runs() {
    invalid(&loading(Bench::new(), b"\x07"), &["model.safetensors"]);
    let mut lying = u64::MAX.to_le_bytes().to_vec();
    lying.extend(b"{}");
    invalid(&loading(Bench::new(), &lying), &["model.safetensors"]);
    let header = br#"{"model.norm.weight":{"dtype":"F32","shape":[128],"data_offsets":[0,999999]}}"#;
    let mut outside = (header.len() as u64).to_le_bytes().to_vec();
    outside.extend(header);
    invalid(&loading(Bench::new(), &outside), &["model.safetensors"]);
    let mut empty = 2_u64.to_le_bytes().to_vec();
    empty.extend(b"{}");
    invalid(&loading(Bench::new(), &empty), &["model.embed_tokens.weight"]);
}

#[test]
fn a_tokenizer_larger_than_the_vocabulary_is_found_before_anything_runs() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    bench.write("small.json", config.replace("\"vocab_size\": 384", "\"vocab_size\": 128"));
    let config = format!("{}/model/config.json", quickstart().display());
    invalid(
        &bench.with(&format!("config = \"{config}\""), "config = \"small.json\""),
        &["vocabulary only 128"],
    );
}

#[test]
fn an_unsupported_model_is_named() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    bench.write("other.json", config.replace("\"model_type\": \"llama\"", "\"model_type\": \"gpt2\""));
    let config = format!("{}/model/config.json", quickstart().display());
    invalid(&bench.with(&format!("config = \"{config}\""), "config = \"other.json\""), &["gpt2"]);
}

#[test]
fn a_template_that_the_tokenizer_has_no_tokens_for_is_found_before_anything_runs() {
    invalid(&Bench::new().with("\"chatml\"", "\"llama3\""), &["llama3", "<|begin_of_text|>"]);
}

#[test]
fn a_missing_plugin_is_an_error_with_the_places_that_were_searched() {
    let bench = Bench::new().with("\"torchao-rowwise\"", "\"torchao-rowise\"");
    refuse(&bench, 69, &["torchao-rowise", "torchao-rowwise", "places searched"]);
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_library_that_is_no_plugin_is_refused_unopened() {
    let bench = Bench::new();
    bench.write("plugins/liba.so", b"\x7fELF and nothing else");
    let bench = bench.with("\"torchao-rowwise\"", "\"plugins/liba.so\"");
    refuse(&bench, 69, &["liba.so"]);
}

#[test]
fn an_unknown_recipe_and_a_wrong_option_are_named_with_what_there_is() {
    invalid(
        &Bench::new().with("recipe = \"rowwise\"", "recipe = \"rowwize\""),
        &["rowwize", "rowwise, tensorwise"],
    );
    let bench = Bench::new()
        .with("recipe = \"rowwise\"", "recipe = \"rowwise\"\noptions = { round_scales_to_power_of_2 = 3 }");
    invalid(&bench, &["round_scales_to_power_of_2", "true or false"]);
}

#[test]
fn an_export_into_a_folder_of_something_else_is_refused() {
    let bench = Bench::new();
    bench.write("out/novel.txt", "years of work");
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(3), "{}", ended.all());
    assert!(ended.err.contains("holds `novel.txt`, which no earlier export wrote"), "{}", ended.err);
    assert!(!bench.path("runs").exists(), "a run was begun");
    assert_eq!(std::fs::read_dir(bench.path("out")).unwrap().count(), 1);
}

#[test]
fn an_unwritable_target_is_refused_before_anything_runs() {
    let bench = Bench::new().with("dir = \"out\"", "dir = \"closed/out\"");
    std::fs::create_dir(bench.path("closed")).unwrap();
    std::fs::set_permissions(bench.path("closed"), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::create_dir(bench.path("closed/probe")).is_ok() {
        // Permissions do not bind root: a file where a folder should be does.
        std::fs::remove_dir(bench.path("closed/probe")).unwrap();
        std::fs::remove_dir(bench.path("closed")).unwrap();
        bench.write("closed", "a file");
    }
    invalid(&bench, &["closed", "choose another place"]);
}

#[test]
fn an_instruction_set_that_is_none_is_an_error() {
    let bench = Bench::new();
    let output = bench.command(&["run", "workflow.toml"]).env("FP8FLOW_ISA", "mmx").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("FP8FLOW_ISA=mmx"));
}

#[test]
fn layers_of_another_model_are_refused_before_anything_runs() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    bench.write("other.json", config.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 2"));
    let other = "[stages.other]\nuses = \"model.init\"\nconfig = \"other.json\"\n\n[stages.layers]";
    let bench = bench.with("[stages.layers]", other);
    let bench = bench.with("model = \"model\"\n\n[stages.train]", "model = \"other\"\n\n[stages.train]");
    invalid(&bench, &["those of another model", "layers.filter"]);
}

#[test]
fn weights_that_overflow_are_neither_saved_nor_exported() {
    let bench = Bench::new();
    let ended = bench.run(&["--set", "stages.train.optimizer.lr=3e38"]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.err.contains("not finite"), "{}", ended.err);
    assert!(!bench.path("out").exists());
    assert!(!bench.run_folder().join("train/checkpoints/step-00000001").exists());
}

#[test]
fn an_export_over_the_model_it_is_made_from_is_refused_before_anything_runs() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["--set", "stages.train.steps=1"]).code, Some(0));
    let base = std::fs::read(bench.path("out/model.safetensors")).unwrap();
    let init = format!("uses = \"model.init\"\nconfig = \"{}/model/config.json\"", quickstart().display());
    let bench = bench.with(&init, "uses = \"model.load\"\npath = \"out\"");
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(3), "{}", ended.all());
    assert!(ended.err.contains("the model is read from"), "{}", ended.err);
    assert_eq!(std::fs::read(bench.path("out/model.safetensors")).unwrap(), base);
}

#[test]
fn more_memory_than_there_is_ends_the_stage_not_the_process() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["intermediate_size"] = 12_288.into();
    bench.write("large.json", config.to_string());
    let base = format!("config = \"{}/model/config.json\"", quickstart().display());
    let bench = bench
        .with(&base, "config = \"large.json\"")
        .with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", "plugin = \"none\"");
    let program = bench.command(&[]).get_program().to_owned();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -v 300000 && exec \"$0\" run workflow.toml --threads 1"]).arg(program);
    let output = shell.current_dir(bench.folder.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    for words in [
        "stage `train` failed: not enough memory: this takes",
        "are available",
        "Take less with a smaller model; or use a machine with more memory.",
    ] {
        assert!(err.contains(words), "no `{words}` in\n{err}");
    }
}

#[test]
fn numbers_that_f32_does_not_have_are_refused_before_anything_runs() {
    for (from, to, words) in [
        ("lr = 3e-3", "lr = 1e39", ["1e39 is inf in f32", "workflow.toml:36:20"]),
        ("lr = 3e-3", "lr = 1e-50", ["1e-50 is 0 in f32", "workflow.toml:36:20"]),
        ("lr = 3e-3", "eps = 1e-60", ["1e-60 is 0 in f32", "workflow.toml:36:21"]),
        ("lr = 3e-3", "betas = [0.9, 0.999999999]", ["0.999999999 is 1 in f32", "workflow.toml:36:29"]),
        ("steps = 4", "epochs = 1e308", ["1e308 passes are more than can be counted", "workflow.toml:34:10"]),
    ] {
        invalid(&Bench::new().with(from, to), &words);
    }
}
