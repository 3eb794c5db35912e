//! What a run leaves behind, and what the other commands say.

use serde_json::Value;

use crate::program::Bench;

#[test]
fn a_run_leaves_a_record_a_plan_events_and_metrics() {
    let bench = Bench::new();
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let folder = bench.run_folder();
    let json = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    assert_eq!(json("run.json")["status"], "finished");
    let plan = json("plan.json");
    assert_eq!(plan["stages"].as_array().unwrap().len(), 6);
    assert_eq!(plan["sections"]["backend"]["params"]["options"]["round_scales_to_power_of_2"], true);

    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("train/metrics.jsonl")).unwrap(), lines);
    let metrics: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(metrics.len(), 4);
    for (i, line) in metrics.iter().enumerate() {
        assert_eq!(line["step"], i + 1);
        for key in ["loss", "lr", "grad_norm", "tokens", "tokens_per_s"] {
            assert!(line[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {line}");
        }
    }
    // 28 linear layers, 4 steps of 3 micro-batches, each with one dgrad and one wgrad.
    assert!(ended.all().contains("28 of 29 linear layers"), "{}", ended.all());
    assert!(ended.all().contains("336 dgrad, 336 wgrad"), "{}", ended.all());
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(bench.path("out").join(name).exists(), "{name}");
    }

    let again = bench.run(&[]);
    assert_eq!(again.code, Some(0), "{}", again.all());
}

#[test]
fn without_a_backend_it_is_said_that_nothing_ran_in_fp8() {
    let bench = Bench::new().with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", "plugin = \"none\"");
    let ended = bench.run(&["--set", "stages.train.steps=1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(ended.all().contains("no layer; everything ran in high precision"), "{}", ended.all());
}

#[test]
fn documents_are_trained_on_in_blocks() {
    let bench = Bench::new()
        .with("/dates.json\"\nformat = \"alpaca\"", "/dates.json\"\nformat = \"text\"")
        .with("uses = \"train.sft\"", "uses = \"train.pt\"\nblock = 32")
        .with("held_out = 4", "held_out = 1");
    let rows: Vec<String> =
        (0..60).map(|i| format!("{{\"text\": \"document {i}: {}\"}}", "March 7, ".repeat(9))).collect();
    let path = bench.write("documents.jsonl", rows.join("\n"));
    let set = format!("stages.records.path={}", path.display());
    let ended = bench.run(&["--set", &set, "--set", "stages.train.steps=2"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(ended.all().contains("blocks of 32 tokens"), "{}", ended.all());
}

#[test]
fn an_evaluation_stage_reports_on_the_trained_model() {
    let bench = Bench::new().with(
        "[stages.export]",
        "[stages.test]\nuses = \"eval\"\nmodel = \"train\"\ntokens = \"tokens\"\nlayers = \"layers\"\n\n[stages.export]",
    );
    let ended = bench.run(&["--set", "stages.train.steps=1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let text = std::fs::read_to_string(bench.run_folder().join("test/evaluation.json")).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["evaluation"]["examples"], 4);
    assert_eq!(found["samples"].as_array().unwrap().len(), 3);
}

#[test]
fn a_plan_names_every_layer_with_its_reason_and_starts_nothing() {
    let bench = Bench::new();
    let ended = bench.fp8flow(&["plan", "workflow.toml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    for words in [
        "model.layers.{0-3}.self_attn.{q,o}_proj",
        "rowwise: e4m3 activations, weights and gradients",
        "its name contains `lm_head`",
        "28 of 29 linear layers in FP8",
        "torchao-rowwise",
    ] {
        assert!(ended.out.contains(words), "no `{words}` in\n{}", ended.out);
    }
    assert!(!bench.path("runs").exists() && !bench.path("out").exists());
}

#[test]
fn plugins_are_listed_and_shown() {
    let bench = Bench::new();
    let list = bench.fp8flow(&["plugin", "list"]);
    assert_eq!(list.code, Some(0), "{}", list.all());
    assert!(list.out.contains("torchao-rowwise"), "{}", list.out);
    let show = bench.fp8flow(&["plugin", "show", "torchao-rowwise"]);
    assert_eq!(show.code, Some(0), "{}", show.all());
    for words in ["rowwise_with_gw_hp", "tensorwise", "round_scales_to_power_of_2", "true", "blake3"] {
        assert!(show.out.contains(words), "no `{words}` in\n{}", show.out);
    }
}

#[test]
fn the_reference_page_is_what_the_field_tables_say() {
    let ended = Bench::new().fp8flow(&["schema", "--format", "markdown"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/workflow.md");
    let help = "write it again: fp8flow schema --format markdown > docs/src/reference/workflow.md";
    assert!(std::fs::read_to_string(page).unwrap() == ended.out, "{help}");
}
