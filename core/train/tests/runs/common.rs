//! What the tests share: a tiny model, its examples, and a run of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_data::TokenSet;
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers, ModelConfig, Parameters, initialise};
use fp8flow_tensor::{Arena, CpuDevice, DType, Device};
use fp8flow_train::{
    Accumulation, Decay, Decayed, Evaluated, Job, LayerTelemetry, OptimizerConfig, RecipeState, Rehearsed,
    Schedule, StepMetrics, TrainConfig, TrainError, Trained, Watcher, rehearse, train,
};

pub(crate) const CONFIG: &str = r#"{
    "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": true, "dtype": "float32"
}"#;

pub(crate) fn examples(n: usize, from: usize) -> TokenSet {
    let mut set = TokenSet::new(48);
    for i in from..from + n {
        let ids: Vec<u32> = (0..5 + i % 7).map(|t| ((i * 7 + t * t) % 48) as u32).collect();
        let labels: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        set.push(&ids, &labels);
    }
    set
}

/// Settings of a short run.
pub(crate) fn settings(steps: u64) -> TrainConfig {
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
        telemetry_every: 0,
        precision: None,
        identity: "test".into(),
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) stop_after: Option<u64>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) resumed: Option<u64>,
    pub(crate) warnings: Vec<String>,
    pub(crate) telemetry: Vec<LayerTelemetry>,
}

impl Watcher for Log {
    fn resumed(&mut self, step: u64) {
        self.resumed = Some(step);
    }
    fn telemetry(&mut self, layers: &[LayerTelemetry]) {
        self.telemetry.extend(layers.to_vec());
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

/// The model of these tests.
pub(crate) fn model() -> ModelConfig {
    ModelConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

pub(crate) fn cpu() -> CpuDevice {
    CpuDevice::new(Isa::best(), Arc::new(Serial))
}

/// What a run is made of, where it is not the usual.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) device: Option<&'a dyn Device>,
    pub(crate) fp8: Option<Fp8Layers>,
    pub(crate) recompute: bool,
    pub(crate) recipe_state: Option<RecipeState>,
    /// What a fresh run starts from.
    pub(crate) parameters: Option<Parameters>,
}

/// A run in high precision.
pub(crate) fn run(folder: &Path, config: TrainConfig, log: &mut Log) -> Result<Trained, TrainError> {
    run_with(folder, config, log, Setup::default())
}

pub(crate) fn run_with(
    folder: &Path,
    config: TrainConfig,
    log: &mut Log,
    setup: Setup<'_>,
) -> Result<Trained, TrainError> {
    start(folder, config, setup, |job, fresh| {
        let stop = log.stop.clone();
        train(job, fresh, &stop, log)
    })
}

/// A run in high precision of which nothing is kept.
pub(crate) fn rehearsal(folder: &Path, config: TrainConfig, log: &mut Log) -> Result<Rehearsed, TrainError> {
    start(folder, config, Setup::default(), |job, fresh| {
        let stop = log.stop.clone();
        rehearse(job, fresh, &stop, log)
    })
}

/// What gives the weights of a run that starts.
type Fresh = Box<dyn FnOnce() -> Result<Parameters, TrainError>>;

fn start<R>(
    folder: &Path,
    config: TrainConfig,
    setup: Setup<'_>,
    run: impl FnOnce(Job<'_>, Fresh) -> Result<R, TrainError>,
) -> Result<R, TrainError> {
    let model = model();
    let options = DecoderOptions { dtype: DType::Bf16, recompute: setup.recompute, tokens: 64 };
    let decisions = setup.fp8.as_ref().map(crate::toy::decisions).unwrap_or_default();
    let decoder = Decoder::new(&model, options, setup.fp8, &mut Arena::allocate()).unwrap();
    let cpu = cpu();
    let (train_set, held_out) = (examples(20, 0), examples(4, 20));
    let job = Job {
        config,
        device: setup.device.unwrap_or(&cpu),
        decoder,
        decisions,
        recipe_state: setup.recipe_state,
        train: &train_set,
        held_out: &held_out,
        folder,
    };
    let parameters = setup.parameters;
    run(job, Box::new(move || Ok(parameters.unwrap_or_else(|| initialise(&model, 3, &Serial)))))
}
