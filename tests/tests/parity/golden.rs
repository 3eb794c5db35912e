//! The golden model, its batch, and a training run on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fp8flow_data::TokenSet;
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{
    Batch, Decoder, DecoderOptions, Fp8Layers, ModelConfig, Parameters, SafeFile, Weights, linear_layers,
    parameter_specs,
};
use fp8flow_sdk::{Decision, Recipe};
use fp8flow_tensor::{Arena, CpuDevice, DType};
use fp8flow_train::{
    Accumulation, Decay, Decayed, Evaluated, Job, LayerTelemetry, OptimizerConfig, Schedule, StepMetrics,
    TrainConfig, Watcher, train,
};

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/hf-llama")
}

pub(crate) fn device() -> CpuDevice {
    CpuDevice::new(Isa::best(), Arc::new(Serial))
}

pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// The tensors PyTorch computed.
pub(crate) fn expected() -> SafeFile {
    SafeFile::open(folder().join("expected.safetensors")).unwrap()
}

pub(crate) fn floats(file: &SafeFile, name: &str) -> Vec<f32> {
    let bytes = file.get(name).unwrap_or_else(|| panic!("no tensor {name}")).bytes;
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
}

fn integers(file: &SafeFile, name: &str) -> Vec<i64> {
    let bytes = file.get(name).unwrap_or_else(|| panic!("no tensor {name}")).bytes;
    bytes.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap())).collect()
}

/// The three sequences with their labels.
pub(crate) fn tokens(config: &ModelConfig) -> TokenSet {
    let file = expected();
    let (ids, labels) = (integers(&file, "input_ids"), integers(&file, "labels"));
    let mut set = TokenSet::new(config.vocab_size);
    for (ids, labels) in ids.chunks(48).zip(labels.chunks(48)) {
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        set.push(&ids, &labels);
    }
    set
}

pub(crate) struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) parameters: Parameters,
    pub(crate) decoder: Decoder,
    pub(crate) decisions: Vec<(String, Decision)>,
}

/// The golden model; every linear layer of a block runs under `recipe`, if there is one.
pub(crate) fn model(dtype: DType, recompute: bool, recipe: Option<Box<dyn Recipe>>) -> Model {
    let config = ModelConfig::open(folder().join("model")).unwrap();
    let parameters = Weights::open(folder().join("model"), &config).unwrap().load(&Serial).unwrap();
    let mut decisions = Vec::new();
    let fp8 = recipe.map(|recipe| {
        let mut layers = linear_layers(&config, None);
        layers.pop();
        let decide = |layer| (recipe.decide(&layer), layer);
        let layers: Vec<_> =
            layers.into_iter().map(decide).map(|(decision, layer)| (layer, decision)).collect();
        decisions = layers.iter().map(|(layer, decision)| (layer.name.clone(), decision.clone())).collect();
        Fp8Layers { recipe, layers }
    });
    let options = DecoderOptions { dtype, recompute, tokens: 3 * 48 };
    let decoder = Decoder::new(&config, options, fp8, &mut Arena::allocate()).unwrap();
    Model { config, parameters, decoder, decisions }
}

/// The gradient of the mean loss, and the loss.
pub(crate) fn gradients(model: &mut Model) -> (Parameters, f64) {
    let device = device();
    let set = tokens(&model.config);
    let micro = fp8flow_data::MicroBatch::new(&set, &[0, 1, 2]);
    let batch = Batch { ids: &micro.ids, targets: &micro.targets, sequences: &micro.sequences };
    let mut gradients = Parameters::zeros(&parameter_specs(&model.config));
    let factor = 1.0 / micro.target_count() as f32;
    model.decoder.weights_changed(&device, &model.parameters).unwrap();
    let result =
        model.decoder.train(&device, &model.parameters, batch, factor, &mut gradients, false).unwrap();
    (gradients, result.loss_sum / result.targets as f64)
}

struct Silent;

impl Watcher for Silent {
    fn resumed(&mut self, _: u64) {}
    fn step(&mut self, _: &StepMetrics) {}
    fn telemetry(&mut self, _: &[LayerTelemetry]) {}
    fn evaluated(&mut self, _: &Evaluated) {}
    fn saved(&mut self, _: u64, _: &std::path::Path) {}
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// The losses of eleven full-batch steps with the settings of the golden.
pub(crate) fn losses(model: Model) -> Vec<f64> {
    let Model { config, parameters, decoder, decisions } = model;
    let folder = tempfile::tempdir().unwrap();
    let set = tokens(&config);
    let steps = 11;
    let settings = TrainConfig {
        steps,
        micro: 3,
        per_step: 3,
        shuffle: false,
        seed: 0,
        optimizer: OptimizerConfig {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decayed: Decayed::All,
            clip: 1.0,
        },
        schedule: Schedule { peak: 1e-3, warmup: 0, steps, decay: Decay::Constant },
        accumulation: Accumulation::Tree,
        checkpoint_every: 0,
        keep: 1,
        evaluate_every: 0,
        samples: 0,
        telemetry_every: 0,
        precision: None,
        identity: "golden".into(),
    };
    let none = TokenSet::new(config.vocab_size);
    let device = device();
    let job = Job {
        config: settings,
        device: &device,
        decoder,
        decisions,
        recipe_state: None,
        train: &set,
        held_out: &none,
        folder: folder.path(),
    };
    let trained = train(job, || Ok(parameters), &AtomicBool::new(false), &mut Silent).unwrap();
    trained.metrics.iter().map(|line| line.loss).collect()
}
