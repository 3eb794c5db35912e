//! Whole runs of a tiny model: interrupted, continued, damaged, diverging.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_data::TokenSet;
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{Decoder, DecoderOptions, ModelConfig, initialise};
use fp8flow_tensor::{Arena, CpuDevice, DType};
use fp8flow_train::{
    Accumulation, CHECKPOINTS, Decay, Decayed, EVALUATIONS, Evaluated, Job, METRICS, OptimizerConfig,
    Schedule, StepMetrics, TrainConfig, TrainError, Trained, Watcher, train,
};

const CONFIG: &str = r#"{
    "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": true, "dtype": "float32"
}"#;

fn examples(n: usize, from: usize) -> TokenSet {
    let mut set = TokenSet::new(48);
    for i in from..from + n {
        let ids: Vec<u32> = (0..5 + i % 7).map(|t| ((i * 7 + t * t) % 48) as u32).collect();
        let labels: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        set.push(&ids, &labels);
    }
    set
}

fn settings(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        micro: 2,
        per_step: 6,
        shuffle: true,
        seed: 3,
        optimizer: OptimizerConfig {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.01,
            decayed: Decayed::Matrices,
            clip: 1.0,
        },
        schedule: Schedule { peak: 1e-2, warmup: 2, steps: 8, decay: Decay::Cosine },
        accumulation: Accumulation::Tree,
        checkpoint_every: 2,
        keep: 2,
        evaluate_every: 3,
        samples: 1,
        identity: "test".into(),
    }
}

#[derive(Default)]
struct Log {
    stop_after: Option<u64>,
    stop: Arc<AtomicBool>,
    resumed: Option<u64>,
    warnings: Vec<String>,
}

impl Watcher for Log {
    fn resumed(&mut self, step: u64) {
        self.resumed = Some(step);
    }
    fn step(&mut self, metrics: &StepMetrics) {
        if self.stop_after == Some(metrics.step) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn evaluated(&mut self, _: &Evaluated) {}
    fn saved(&mut self, _: u64, _: &Path) {}
    fn warn(&mut self, message: &str) {
        self.warnings.push(message.into());
    }
}

fn run(folder: &Path, config: TrainConfig, log: &mut Log) -> Result<Trained, TrainError> {
    let model = ModelConfig::from_json(CONFIG, Path::new("config.json")).unwrap();
    let options = DecoderOptions { dtype: DType::Bf16, recompute: false, tokens: 64 };
    let decoder = Decoder::new(&model, options, None, &mut Arena::allocate()).unwrap();
    let device = CpuDevice::new(Isa::best(), Arc::new(Serial));
    let (train_set, held_out) = (examples(20, 0), examples(4, 20));
    let job = Job {
        config,
        device: &device,
        decoder,
        decisions: Vec::new(),
        train: &train_set,
        held_out: &held_out,
        folder,
    };
    let stop = log.stop.clone();
    train(job, || Ok(initialise(&model, 3, &Serial)), &stop, log)
}

/// Name and bytes of every file of a folder.
fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The metrics, but for the clock.
fn lines(trained: &Trained) -> Vec<StepMetrics> {
    trained.metrics.iter().map(|line| StepMetrics { tokens_per_s: 0.0, ..line.clone() }).collect()
}

#[test]
fn an_interrupted_run_that_goes_on_ends_with_the_same_bytes() {
    let straight = tempfile::tempdir().unwrap();
    let expected = run(straight.path(), settings(8), &mut Log::default()).unwrap();
    assert_eq!(expected.metrics.len(), 8);
    assert!(expected.metrics[7].loss < expected.metrics[0].loss);

    for stop_after in [1, 3, 4] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after: Some(stop_after), ..Log::default() };
        let stopped = run(folder.path(), settings(8), &mut log);
        assert!(matches!(stopped, Err(TrainError::Interrupted { step }) if step == stop_after));

        let mut log = Log::default();
        let found = run(folder.path(), settings(8), &mut log).unwrap();
        assert_eq!((log.resumed, found.steps_here), (Some(stop_after), 8 - stop_after));
        assert_eq!(lines(&found), lines(&expected));
        assert_eq!(found.evaluations, expected.evaluations);
        assert!(bytes(&found.checkpoint) == bytes(&expected.checkpoint), "after {stop_after} steps");
    }
}

#[test]
fn a_checkpoint_is_kept_for_each_of_the_newest_and_nothing_else_remains() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join(CHECKPOINTS).join(".tmp-step-00000001-1")).unwrap();
    run(folder.path(), settings(8), &mut Log::default()).unwrap();
    let names: Vec<_> = bytes_names(&folder.path().join(CHECKPOINTS));
    assert_eq!(names, ["step-00000006", "step-00000008"]);
    let metrics = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
    assert_eq!(metrics.lines().count(), 8);
    let evaluations = std::fs::read_to_string(folder.path().join(EVALUATIONS)).unwrap();
    assert_eq!(evaluations.lines().count(), 4, "before, after 3 and 6, at the end");
}

fn bytes_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_word_and_the_one_before_taken() {
    let straight = tempfile::tempdir().unwrap();
    let expected = run(straight.path(), settings(8), &mut Log::default()).unwrap();
    for (file, damage) in [("model.safetensors", 100), ("optimizer.safetensors", 0), ("MANIFEST.json", 10)] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after: Some(6), ..Log::default() };
        assert!(run(folder.path(), settings(8), &mut log).is_err());
        let path = folder.path().join(CHECKPOINTS).join("step-00000006").join(file);
        let mut bytes_of_file = std::fs::read(&path).unwrap();
        if damage == 0 {
            bytes_of_file.truncate(1000);
        } else {
            bytes_of_file[damage] ^= 1;
        }
        std::fs::write(&path, bytes_of_file).unwrap();

        let mut log = Log::default();
        let found = run(folder.path(), settings(8), &mut log).unwrap();
        assert_eq!(log.resumed, Some(4), "{file}");
        assert_eq!(log.warnings.len(), 1, "{:?}", log.warnings);
        assert!(log.warnings[0].contains("step-00000006"), "{:?}", log.warnings);
        assert!(bytes(&found.checkpoint) == bytes(&expected.checkpoint), "{file}");
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log { stop_after: Some(3), ..Log::default() };
    assert!(run(folder.path(), settings(8), &mut log).is_err());
    let other = TrainConfig { identity: "another".into(), ..settings(8) };
    let error = run(folder.path(), other, &mut Log::default()).err().unwrap().to_string();
    assert!(error.contains("step-00000003") && error.contains("other settings"), "{error}");
}

#[test]
fn a_run_that_diverges_stops_and_names_where() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(8);
    config.schedule.peak = 1e36;
    config.optimizer.clip = 0.0;
    let error = run(folder.path(), config, &mut Log::default()).err().unwrap();
    let TrainError::NotFinite { step, place, .. } = &error else { panic!("{error}") };
    assert!((2..8).contains(step), "{error}");
    assert!(place.contains("model."), "{error}");
}

#[test]
fn micro_batches_only_split_the_work() {
    // One sequence a micro-batch or six: the same sums but for rounding.
    let (one, six) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let split = run(one.path(), TrainConfig { micro: 1, ..settings(4) }, &mut Log::default()).unwrap();
    let whole = run(six.path(), TrainConfig { micro: 6, ..settings(4) }, &mut Log::default()).unwrap();
    for (a, b) in split.metrics.iter().zip(&whole.metrics) {
        assert_eq!(a.tokens, b.tokens);
        assert!((a.loss - b.loss).abs() < 2e-3 * b.loss, "{} and {}", a.loss, b.loss);
        assert!(
            (a.grad_norm - b.grad_norm).abs() < 2e-2 * b.grad_norm,
            "{} and {}",
            a.grad_norm,
            b.grad_norm
        );
    }
}
