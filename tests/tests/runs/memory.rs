//! The memory that `plan` promises is the memory that a run takes.

use serde_json::{Value, json};

use crate::program::Bench;

#[test]
fn a_run_takes_the_memory_that_was_planned() {
    const SEQUENCE: usize = 128;
    let bench = Bench::new();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8192, "hidden_size": 512,
        "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "tie_word_embeddings": false,
    });
    bench.write("large.json", config.to_string());
    let ids =
        |example: usize| (0..SEQUENCE).map(|i| (example * 7919 + i * i * 31) % 8192).collect::<Vec<_>>();
    let lines: Vec<String> = (0..10).map(|i| json!({ "input_ids": ids(i) }).to_string()).collect();
    bench.write("tokens.jsonl", lines.join("\n"));
    bench.write(
        "memory.toml",
        format!(
            r#"[workflow]
name = "memory"
[backend]
plugin = "torchao-rowwise"
[stages.records]
uses = "data.load"
path = "tokens.jsonl"
format = "tokens"
[stages.tokens]
uses = "data.tokenize"
records = "records"
cutoff = {SEQUENCE}
[stages.model]
uses = "model.init"
config = "large.json"
[stages.layers]
uses = "layers.filter"
model = "model"
[stages.train]
uses = "train.sft"
model = "model"
tokens = "tokens"
layers = "layers"
steps = 2
batch = {{ micro = 4, per_step = 4 }}
checkpoint = {{ every_steps = 1, keep = 1 }}
"#
        ),
    );
    let plan = bench.fp8flow(&["plan", "memory.toml", "--json"]);
    assert_eq!(plan.code, Some(0), "{}", plan.all());
    let plan: Value = serde_json::from_str(&plan.out).unwrap();
    let train = plan["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == "train").unwrap();
    let planned = train["facts"]["memory"]["peak"].as_f64().unwrap() / 1e9;
    assert!(planned > 0.3, "{planned} GB, too little to tell anything");

    let run = bench.fp8flow(&["run", "memory.toml", "--threads", "2"]);
    assert_eq!(run.code, Some(0), "{}", run.all());
    let said = run.out.lines().find_map(|line| line.strip_prefix("memory: ")?.split_once(" at the peak, "));
    let (peak, promised) = said.unwrap_or_else(|| panic!("{}", run.all()));
    let gb = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    println!("planned {planned:.3} GB, by the run {promised}, measured {peak}");
    let (peak, promised) = (gb(peak), gb(promised));
    assert!((peak / planned - 1.0).abs() <= 0.1, "planned {planned} GB, measured {peak} GB");
    assert!((promised / planned - 1.0).abs() <= 0.02, "planned {planned} GB, by the run {promised} GB");
}
