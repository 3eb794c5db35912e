//! Which layers run in FP8, from the workflow to the counters.

use std::time::Duration;

use serde_json::Value;

use crate::program::Bench;
use crate::reproducible::{expected_of, kill_until_it_ends};

/// Entries that give q, k and v three recipes, and the last block none.
const MIXED: &str = "last = 1\n\
    [[stages.layers.recipes]]\nlayers = [\"*.k_proj\", \"*.mlp.*\"]\nrecipe = \"tensorwise\"\n\
    [[stages.layers.recipes]]\nlayers = [\"*.v_proj\"]\nrecipe = \"rowwise_with_gw_hp\"\n";

fn mixed() -> Bench {
    Bench::new()
        .with("model = \"model\"\n\n[stages.train]", &format!("model = \"model\"\n{MIXED}\n[stages.train]"))
}

#[test]
fn several_recipes_train_one_model_and_are_counted_layer_by_layer() {
    let bench = mixed();
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(ended.all().contains("21 of 29 linear layers in FP8"), "{}", ended.all());
    // 12 micro-batches: 21 layers have FP8 dgrads, the three v projections no FP8 wgrad.
    assert!(ended.all().contains("252 dgrad, 216 wgrad"), "{}", ended.all());
    let text = std::fs::read_to_string(bench.run_folder().join("layers/layers.json")).unwrap();
    let layers: Value = serde_json::from_str(&text).unwrap();
    let recipes: Vec<&str> = layers["recipes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|recipe| recipe["recipe"].as_str().unwrap())
        .collect();
    assert_eq!(recipes, ["rowwise", "tensorwise", "rowwise_with_gw_hp"]);
}

#[test]
fn several_recipes_give_the_same_bytes_with_and_without_recompute() {
    let bench = mixed();
    let ended = bench.run(&["--set", "stages.train.steps=2"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let again = mixed().with("steps = 4", "steps = 2\nrecompute = \"block\"");
    let ended = again.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let weights = |bench: &Bench| std::fs::read(bench.path("out/model.safetensors")).unwrap();
    assert!(weights(&bench) == weights(&again), "recompute changed the bytes");

    let plain = Bench::new();
    assert_eq!(plain.run(&["--set", "stages.train.steps=2"]).code, Some(0));
    assert!(weights(&bench) != weights(&plain), "the recipes made no difference");
}

/// Two recipes with state of their own, by their options, and one without.
#[test]
fn states_of_several_recipes_survive_kills_each_for_itself() {
    let bench = || {
        let backend = "plugin = \"auto\"\nrecipe = \"delayed\"";
        let entries = "[[stages.layers.recipes]]\nlayers = [\"*.k_proj\"]\noptions = { amax_history_len = 4 }\n\
                       [[stages.layers.recipes]]\nlayers = [\"*.mlp.*\"]\nrecipe = \"current\"\n";
        Bench::new().with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", backend).with(
            "model = \"model\"\n\n[stages.train]",
            &format!("model = \"model\"\n{entries}\n[stages.train]"),
        )
    };
    let plan = bench().fp8flow(&["plan", "workflow.toml"]);
    for words in [
        "auto: transformer-engine-hybrid, because it is the first with the recipe `delayed`",
        "passed over: torchao-rowwise has other recipes",
        "28 of 29 linear layers in FP8",
    ] {
        assert!(plan.out.contains(words), "no `{words}` in\n{}", plan.all());
    }
    let straight = bench();
    let expected = expected_of(&straight);
    let state = straight.run_folder().join("train/checkpoints/step-00000004/recipe.safetensors");
    let state = String::from_utf8_lossy(&std::fs::read(state).unwrap()).into_owned();
    assert!(state.contains("0.delayed/") && state.contains("1.delayed/"), "two states");
    assert!(!state.contains("2.current/"), "a recipe without state");
    assert!(kill_until_it_ends(&bench(), &expected, Duration::from_millis(250)) > 0);
}

#[test]
fn a_fallback_trains_in_bf16_and_says_so_everywhere() {
    let bench = Bench::new().with("\"torchao-rowwise\"", "\"torchao-rowise\"\nfallback = \"bf16\"");
    let plan = bench.fp8flow(&["plan", "workflow.toml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.all());
    assert!(plan.out.contains("!! NO FP8 !!") && plan.err.contains("this is no FP8 run"), "{}", plan.all());
    assert!(plan.out.contains("0 of 29 linear layers in FP8"), "{}", plan.out);

    let ended = bench.run(&["--set", "stages.train.steps=1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert!(
        ended.err.contains("this is no FP8 run") && ended.err.contains("places searched"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("layers: no layer runs in FP8: fallback = \"bf16\""), "{}", ended.err);
    let run = std::fs::read_to_string(bench.run_folder().join("run.json")).unwrap();
    let run: Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["environment"]["backend"]["fallback"], "bf16", "{run:#}");
    let events = std::fs::read_to_string(bench.run_folder().join("events.jsonl")).unwrap();
    assert!(events.contains("no layer runs in FP8"), "{events}");

    // The same run is not what goes on once the plugin is there.
    let bench = bench.with("\"torchao-rowise\"", "\"torchao-rowwise\"");
    let ended = bench.run(&["--set", "stages.train.steps=1"]);
    assert!(ended.all().contains("28 of 29 linear layers in FP8"), "{}", ended.all());
}

#[test]
fn a_plan_of_many_blocks_fits_a_screen() {
    let bench = Bench::new();
    let config = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu"}"#;
    bench.write("large.json", config);
    bench.write(
        "large.toml",
        "[stages.model]\nuses = \"model.init\"\nconfig = \"large.json\"\n\n[stages.layers]\nuses = \"layers.filter\"\n\
         model = \"model\"\nfirst = 1\nmin_gain = \"torchao\"\nexclude = [\"model.layers.{7,9}.*.o_proj\"]\n",
    );
    let ended = bench.fp8flow(&["plan", "large.toml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let table: Vec<&str> =
        ended.out.lines().skip_while(|line| !line.contains("linear layers in FP8")).collect();
    let end = table.iter().position(|line| line.contains("skip = ")).unwrap();
    assert!(end <= 24, "{}", ended.out);
    assert!(table[..end].iter().all(|line| line.chars().count() <= 100), "{}", ended.out);
}
