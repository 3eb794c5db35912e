//! A small workflow on an emulated card, and what it leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fp8flow_kernels::Serial;
use fp8flow_model::{ModelConfig, NamedTensor, StoredType, TensorData, initialise, write_safetensors};
use serde_json::{Value, json};

use crate::program::{Bench, Ended, quickstart};

/// A card that is there, by the emulator's words.
pub(super) const HOPPER: &str = "hopper";
/// Optimizer steps.
pub(super) const STEPS: u64 = 8;

/// The folder of the emulated card; none where there is nothing to emulate one with, which is said.
pub(super) fn emulated() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match fp8flow_card_tests::emulated() {
        Ok(folder) => Some(folder),
        Err(obstacle) => {
            println!("skipped: no card can be emulated: {obstacle}");
            None
        }
    });
    folder.as_deref()
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fp8 {
    None,
    Recipe(&'static str, &'static str),
}

pub(super) const ROWWISE: Fp8 = Fp8::Recipe("torchao-rowwise", "rowwise");
pub(super) const DELAYED: Fp8 = Fp8::Recipe("transformer-engine-hybrid", "delayed");

/// A model of two blocks with heads of 64, on a few records of the quickstart.
pub(super) fn bench(fp8: Fp8) -> Bench {
    let data = quickstart().display().to_string();
    let backend = match fp8 {
        Fp8::None => "plugin = \"none\"".to_owned(),
        Fp8::Recipe(plugin, recipe) => format!("plugin = \"{plugin}\"\nrecipe = \"{recipe}\""),
    };
    let init = format!("uses = \"model.init\"\nconfig = \"{data}/model/config.json\"");
    let bench = Bench::new()
        .with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", &backend)
        .with(&format!("{data}/dates.json"), "rows.json")
        .with(&init, "uses = \"model.load\"\npath = \"model\"")
        .with("held_out = 4", "held_out = 1")
        .with("steps = 4", &format!("steps = {STEPS}"))
        .with("batch = { micro = 2, per_step = 6 }", "batch = { micro = 2, per_step = 2 }")
        .with("keep = 2", "keep = 100")
        .with(
            "[stages.export]",
            "[stages.eval]\nuses = \"eval\"\nmodel = \"train\"\ntokens = \"tokens\"\nlayers = \"layers\"\n\n[stages.export]",
        );
    let rows: Value =
        serde_json::from_str(&std::fs::read_to_string(quickstart().join("dates.json")).unwrap()).unwrap();
    bench.write("rows.json", Value::from(rows.as_array().unwrap()[..14].to_vec()).to_string());
    write_model(&bench, 0.0);
    bench
}

/// Weights of seed 7, each off by the part `shake` of it, up or down.
pub(super) fn write_model(bench: &Bench, shake: f32) {
    let text = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 384, "hidden_size": 128,
        "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "eos_token_id": 2, "dtype": "float32",
    })
    .to_string();
    let at = bench.write("model/config.json", &text);
    let config = ModelConfig::from_json(&text, &at).unwrap();
    let mut parameters = initialise(&config, 7, &Serial);
    for tensor in parameters.tensors_mut().iter_mut().filter(|_| shake != 0.0) {
        let up = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 30).is_multiple_of(2);
        let shaken = |(i, x): (usize, &mut f32)| *x *= if up(i) { 1.0 + shake } else { 1.0 - shake };
        tensor.f32_mut().iter_mut().enumerate().for_each(shaken);
    }
    let tensors = parameters.iter().map(|(spec, tensor)| NamedTensor {
        name: spec.name.clone(),
        dtype: StoredType::F32,
        shape: spec.shape.clone(),
        data: TensorData::F32(tensor.f32()),
    });
    let path = bench.path("model/model.safetensors");
    let _ = std::fs::remove_file(&path);
    write_safetensors(&path, tensors.collect::<Vec<_>>(), &[("format", "pt")]).unwrap();
}

/// The binary on a machine with `cards`, or without a driver.
pub(super) fn command(bench: &Bench, cards: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = bench.command(arguments);
    match cards {
        Some(cards) => {
            command.env("FP8FLOW_CUDA_DIR", emulated().unwrap()).env("FP8FLOW_TEST_CARDS", cards);
        }
        None => {
            command.env_remove("FP8FLOW_CUDA_DIR");
        }
    }
    command
}

pub(super) fn ended(bench: &Bench, cards: Option<&str>, arguments: &[&str]) -> Ended {
    command(bench, cards, arguments).output().unwrap().into()
}

const ON_CARD: [&str; 4] = ["run", "workflow.toml", "--set", "workflow.device=\"cuda\""];

/// A whole run on a Hopper.
pub(super) fn run(bench: &Bench) -> Ended {
    let ended = ended(bench, Some(HOPPER), &ON_CARD);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    ended
}

/// The losses of every step of the only run.
pub(super) fn losses(bench: &Bench) -> Vec<f64> {
    let text = std::fs::read_to_string(bench.run_folder().join("train/metrics.jsonl")).unwrap();
    let losses =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap());
    losses.collect()
}

/// The digest of every file of every checkpoint of the only run, and of the exported model.
pub(super) fn bytes(bench: &Bench) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![bench.run_folder().join("train/checkpoints"), bench.path("out")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let digest = blake3::hash(&std::fs::read(&entry).unwrap()).to_string();
            let name = entry.strip_prefix(bench.run_folder()).or(entry.strip_prefix(bench.folder.path()));
            files.insert(name.unwrap().display().to_string(), digest);
        }
    }
    files
}

/// A run that is killed while it trains and started again, each time after twice as long.
pub(super) fn kill_until_it_ends(bench: &Bench, pause: Duration) -> u32 {
    let began = Instant::now();
    let mut kills = 0;
    loop {
        let mut command = command(bench, Some(HOPPER), &ON_CARD);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let training = || {
            let runs = std::fs::read_dir(bench.path("runs")).into_iter().flatten().flatten();
            runs.map(|run| run.path().join("train/metrics.jsonl")).find(|path| path.exists())
        };
        // Only training is worth killing: what comes before has tests of its own.
        let mut deadline = None;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if deadline.is_none() && training().is_some() {
                deadline = Some(Instant::now() + pause * (1 << kills.min(10)));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break None;
            }
            sleep(Duration::from_millis(5));
        };
        if let Some(status) = status {
            assert_eq!(status.code(), Some(0), "after {kills} kills");
            return kills;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(began.elapsed() < Duration::from_mins(5), "no end after {kills} kills");
    }
}
