//! FP8 is proven, never assumed: a backend that runs something else is caught, whatever it says, and a run that goes on
//! without FP8 says so everywhere.

use serde_json::Value;

use crate::program::{Bench, Ended};

/// The workflow with the backend that pretends, told how.
fn pretending(how: &str) -> Bench {
    Bench::new().with(
        "plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"",
        &format!("plugin = \"pretending\"\noptions = {{ how = \"{how}\" }}"),
    )
}

fn caught(bench: &Bench, words: &[&str]) {
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    for words in words {
        assert!(ended.err.contains(words), "no `{words}` in\n{}", ended.err);
    }
    assert!(!bench.path("out").exists(), "something was exported");
    let checkpoints = bench.run_folder().join("train/checkpoints");
    assert!(
        !checkpoints.exists() || std::fs::read_dir(checkpoints).unwrap().count() == 0,
        "a checkpoint was saved"
    );
}

/// Lines of a file in the folder of the training.
fn lines(bench: &Bench, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(bench.run_folder().join("train").join(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(path: impl AsRef<std::path::Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn succeed(bench: &Bench, more: &[&str]) -> Ended {
    let ended = bench.run(more);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    ended
}

#[test]
fn a_backend_that_runs_high_precision_and_counts_nothing_is_caught_before_the_first_step() {
    let bench = pretending("silent");
    caught(
        &bench,
        &[
            "recipe `fp8` of plugin `pretending`",
            "28 layers (`model.layers.0.self_attn.q_proj`, …)",
            "it counted [0, 0, 0]",
            "Nothing was trained",
        ],
    );
    assert!(lines(&bench, "metrics.jsonl").is_empty());
}

#[test]
fn a_backend_that_counts_fp8_gemms_which_it_does_not_run_is_caught_by_its_arithmetic() {
    let bench = pretending("lying");
    caught(
        &bench,
        &[
            "recipe `fp8` of plugin `pretending`",
            "y has a signal-to-noise ratio of",
            "it is computed in high precision, not in FP8",
        ],
    );
    assert!(lines(&bench, "metrics.jsonl").is_empty());
}

#[test]
fn a_single_layer_that_does_not_run_in_fp8_is_named_after_the_first_step() {
    let bench = pretending("all_but_one");
    caught(
        &bench,
        &[
            "1 of 28 FP8 layers did not run as planned",
            "layer `model.layers.2.mlp.down_proj`: planned [",
            ", 3, 3], counted [0, 0, 0]",
        ],
    );
    assert_eq!(lines(&bench, "metrics.jsonl").len(), 1);
}

#[test]
fn an_honest_backend_passes_and_the_report_holds_the_evidence() {
    let bench = pretending("honest");
    let ended = succeed(&bench, &[]);
    assert!(
        ended.all().contains("fp8: recipe fp8 was seen to compute in FP8: a layer of 64 × 128"),
        "{}",
        ended.all()
    );
    let report = &json(bench.run_folder().join("train/stage.json"))["account"]["fp8"];
    assert_eq!(report["gemms"], report["planned"]);
    assert_eq!(report["planned"]["wgrad"], 28 * 12);
    assert_eq!(report["passes"]["trained"], 12);
    assert_eq!(report["challenge"][0]["recipe"], "fp8");
    for product in ["y", "dx", "dw"] {
        for db in report["challenge"][0]["db"][product].as_array().unwrap() {
            assert!((14.0..45.0).contains(&db.as_f64().unwrap()), "{report}");
        }
    }
}

/// The workflow with delayed scaling, and with an `eval` of the trained model.
fn evaluated(bench: Bench) -> Bench {
    bench.with(
        "[stages.export]",
        "[stages.test]\nuses = \"eval\"\nmodel = \"train\"\ntokens = \"tokens\"\nlayers = \"layers\"\n\n[stages.export]",
    )
}

#[test]
fn an_evaluation_has_the_scales_that_the_model_was_trained_with() {
    let recipe = "transformer-engine-hybrid\"\nrecipe = \"delayed";
    let bench = evaluated(Bench::new().with("torchao-rowwise\"\nrecipe = \"rowwise", recipe));
    succeed(&bench, &["--set", "stages.test.micro=2"]);
    let found = &json(bench.run_folder().join("test/evaluation.json"))["evaluation"];
    let evaluations = lines(&bench, "evaluations.jsonl");
    assert_eq!(found["loss"], evaluations[1]["loss"], "what the training itself has found at its end");
}

#[test]
fn watching_every_step_changes_no_byte_and_shows_every_layer() {
    for recipe in
        ["torchao-rowwise\"\nrecipe = \"tensorwise", "transformer-engine-hybrid\"\nrecipe = \"delayed"]
    {
        let bench = || Bench::new().with("torchao-rowwise\"\nrecipe = \"rowwise", recipe);
        let (seldom, often) = (bench(), bench());
        succeed(&seldom, &[]);
        succeed(&often, &["--set", "stages.train.telemetry.every_steps=1"]);
        assert_eq!(seldom.result(), often.result(), "{recipe}");
        assert_eq!(lines(&seldom, "telemetry.jsonl").len(), 2 * 28, "the first step and the last");
        let lines = lines(&often, "telemetry.jsonl");
        assert_eq!(lines.len(), 4 * 28);
        for (i, line) in lines.iter().enumerate() {
            assert_eq!(line["step"], i / 28 + 1);
            for tensor in ["weight", "gradient"] {
                assert!(line[tensor]["amax"].as_f64().is_some_and(|amax| amax > 0.0), "{tensor}: {line}");
                assert!(line[tensor]["saturated"].is_f64() && line[tensor]["underflowed"].is_f64(), "{line}");
            }
        }
    }
}

#[test]
fn a_cast_that_loses_more_than_the_limit_is_warned_of_by_name() {
    let recipe = "transformer-engine-hybrid\"\nrecipe = \"delayed";
    let bench = || Bench::new().with("torchao-rowwise\"\nrecipe = \"rowwise", recipe);
    let strict = bench();
    let ended = succeed(&strict, &["--set", "stages.train.telemetry.warn_underflowed=0"]);
    for words in ["step 1: ", " became zero in FP8", "` became", "`model.layers.", "layers.filter", "worst: "]
    {
        assert!(ended.all().contains(words), "no `{words}` in\n{}", ended.all());
    }
    let worst = &json(strict.run_folder().join("train/stage.json"))["account"]["fp8"]["worst"];
    assert!((1..=5).contains(&worst.as_array().unwrap().len()), "{worst}");

    let lenient = bench();
    let ended = succeed(
        &lenient,
        &[
            "--set",
            "stages.train.telemetry.warn_underflowed=1",
            "--set",
            "stages.train.telemetry.warn_saturated=1",
        ],
    );
    assert!(!ended.all().contains("became zero in FP8"), "{}", ended.all());
    assert_eq!(strict.result(), lenient.result());
}

#[test]
fn a_run_that_falls_back_is_marked_in_everything_it_leaves() {
    let bench = Bench::new()
        .with("plugin = \"torchao-rowwise\"\nrecipe", "plugin = \"not-there\"\nfallback = \"bf16\"\nrecipe");
    let ended = succeed(&bench, &[]);
    assert!(ended.all().contains("nothing runs in FP8"), "{}", ended.all());
    assert!(ended.all().contains("precision: bf16 (fallback): NOTHING ran in FP8"), "{}", ended.all());
    let metrics = lines(&bench, "metrics.jsonl");
    assert_eq!(metrics.len(), 4);
    assert!(metrics.iter().all(|line| line["precision"] == "bf16 (fallback)"), "{metrics:?}");
    let checkpoint = bench.run_folder().join("train/checkpoints/step-00000004/config.json");
    for config in [checkpoint, bench.path("out/config.json")] {
        assert_eq!(json(&config)["fp8flow_fallback"], "bf16", "{}", config.display());
    }

    let plain = Bench::new();
    succeed(&plain, &["--set", "stages.train.steps=1"]);
    assert!(json(plain.path("out/config.json")).get("fp8flow_fallback").is_none());
    assert!(lines(&plain, "metrics.jsonl")[0].get("precision").is_none());
}

#[test]
fn a_fresh_run_takes_over_the_scales_of_another() {
    let recipe = "transformer-engine-hybrid\"\nrecipe = \"delayed";
    let bench = || Bench::new().with("torchao-rowwise\"\nrecipe = \"rowwise", recipe);
    let first = bench();
    succeed(&first, &[]);
    let state = first.run_folder().join("train/checkpoints/step-00000004/recipe.safetensors");
    let set = format!("stages.train.recipe_state={}", state.display());

    let second = bench();
    succeed(&second, &["--set", &set]);
    let losses = |bench: &Bench| lines(bench, "metrics.jsonl")[1]["loss"].as_f64().unwrap();
    assert_ne!(losses(&first), losses(&second), "other scales, other roundings");

    let stateless = Bench::new();
    let ended = stateless.run(&["--set", &set]);
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.err.contains("recipe.safetensors: the recipe refuses this state"), "{}", ended.err);

    let none = Bench::new().with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", "plugin = \"none\"");
    let ended = none.run(&["--set", &set]);
    assert_eq!(ended.code, Some(3), "{}", ended.all());
    assert!(ended.err.contains("no FP8 recipe whose state this could be"), "{}", ended.err);
}
