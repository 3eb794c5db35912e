//! A decoder's gradients on a card follow those on the CPU, and its own from call to call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{
    Batch, Decoder, DecoderOptions, Fp8Layers, ModelConfig, Parameters, initialise, linear_layers,
};
use fp8flow_sdk::{Backend, Counters, Options};
use fp8flow_tensor::{Arena, CpuDevice, CudaDevice, DType, Device, Tensor};
use torchao_rowwise::TorchaoRowwise;
use transformer_engine_hybrid::TransformerEngineHybrid;

const CONFIG: &str = r#"{
    "model_type": "llama", "vocab_size": 300, "hidden_size": 128, "intermediate_size": 192,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": false, "dtype": "float32"
}"#;

fn config() -> ModelConfig {
    ModelConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

/// Ends of the sequences of a micro-batch.
const SEQUENCES: [u32; 4] = [0, 17, 18, 70];

/// A recipe of a backend that is linked into this test, for all layers of `config`.
fn layers<B: Backend>(config: &ModelConfig, recipe: &str) -> Fp8Layers {
    let host = fp8flow_testkit::host(Isa::best(), 1);
    let info = B::recipes().into_iter().find(|info| info.name == recipe).unwrap();
    let options = Options(info.options.into_iter().map(|field| (field.name, field.default)).collect());
    let recipe = B::start(&host).unwrap().recipe(&host, recipe, &options).unwrap();
    let layers = linear_layers(config, Some(80));
    let layers = layers.into_iter().filter(|layer| layer.block.is_some());
    let layers = layers.map(|layer| (layer.clone(), recipe.decide(&layer))).collect();
    Fp8Layers { recipe, layers }
}

/// Loss and gradients of one micro-batch, and what the layers have counted.
fn gradients(
    device: &dyn Device,
    dtype: DType,
    recompute: bool,
    shaken: bool,
    fp8: Option<Fp8Layers>,
) -> (f64, Parameters, Vec<Counters>) {
    let config = config();
    let mut parameters = initialise(&config, 7, &Serial);
    for tensor in parameters.tensors_mut().iter_mut().filter(|_| shaken) {
        // Half a place of bf16, up and down.
        let shake = |(i, x): (usize, &mut f32)| *x *= if i % 2 == 0 { 1.002 } else { 0.998 };
        tensor.f32_mut().iter_mut().enumerate().for_each(shake);
    }
    let parameters = parameters.moved_to(device).unwrap();
    let options = DecoderOptions { dtype, tokens: 80, recompute };
    let mut decoder = Decoder::new(&config, options, fp8, &mut Arena::of(device)).unwrap();
    decoder.weights_changed(device, &parameters).unwrap();
    let mut gradients = Parameters::zeros_on(device, parameters.specs()).unwrap();
    let ids: Vec<u32> = (0..70).map(|t| (t * t + 3 * t) % 300).collect();
    let targets: Vec<i32> = (0..70).map(|t| if t % 5 == 0 { -1 } else { (t * 11) % 300 }).collect();
    let batch = Batch { ids: &ids, targets: &targets, sequences: &SEQUENCES };
    let found = decoder.train(device, &parameters, batch, 1.0 / 56.0, &mut gradients, false).unwrap();
    device.settle().unwrap();
    assert_eq!(found.targets, 56);
    let counters = decoder.counters().unwrap().into_iter().map(|(_, counters)| counters).collect();
    (found.loss_sum, gradients, counters)
}

/// The largest difference, by the largest element.
fn off(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (a.here().unwrap(), b.here().unwrap());
    let largest = b.f32().iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    a.f32().iter().zip(b.f32()).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The norm of the difference, by that of `b`.
fn noise(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.here().unwrap(), b.here().unwrap());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.f32().iter().zip(b.f32()).map(|(a, b)| a - b)) / norm(&mut b.f32().iter().copied())
}

#[test]
fn gradients_follow_those_of_the_cpu_and_are_the_same_each_time() {
    let Some(card) = card() else { return };
    let cpu = Arc::new(CpuDevice::new(Isa::best(), Arc::new(Serial)));
    let device = CudaDevice::new(card, cpu.clone()).unwrap();
    for (dtype, bound) in [(DType::F32, 2e-5), (DType::Bf16, 2e-2)] {
        let (expected_loss, expected, _) = gradients(&*cpu, dtype, false, false, None);
        let (loss, found, _) = gradients(&device, dtype, false, false, None);
        assert!((loss - expected_loss).abs() < f64::from(bound) * expected_loss, "{loss}, {expected_loss}");
        for ((spec, found), (_, expected)) in found.iter().zip(expected.iter()) {
            let off = off(found, expected);
            assert!(off < bound, "{dtype:?} {}: off by {off}", spec.name);
        }
        let (again, same, _) = gradients(&device, dtype, true, false, None);
        assert_eq!(again.to_bits(), loss.to_bits(), "{dtype:?}");
        for ((spec, found), (_, same)) in found.iter().zip(same.iter()) {
            assert_eq!(found.here().unwrap().f32(), same.here().unwrap().f32(), "{dtype:?} {}", spec.name);
        }
    }
}

/// A recipe's gradients on both, and the counters of its layers.
fn follows<B: Backend>(device: &CudaDevice, cpu: &CpuDevice, recipe: &str) {
    let config = config();
    let (expected_loss, expected, counted) =
        gradients(cpu, DType::Bf16, false, false, Some(layers::<B>(&config, recipe)));
    let (loss, found, counters) =
        gradients(device, DType::Bf16, false, false, Some(layers::<B>(&config, recipe)));
    let (_, shaken, _) = gradients(cpu, DType::Bf16, false, true, Some(layers::<B>(&config, recipe)));
    assert!((loss - expected_loss).abs() < 2e-3 * expected_loss, "{recipe}: {loss}, {expected_loss}");
    for (((spec, found), (_, expected)), (_, shaken)) in found.iter().zip(expected.iter()).zip(shaken.iter())
    {
        // A sum in another order may round to the next bf16, and that to the next code, an eighth away: no more of it than
        // weights make that are half a place of bf16 off.
        let (off, band) = (noise(found, expected), noise(shaken, expected));
        println!("{recipe} {}: {off:.4} beside {band:.4}", spec.name);
        assert!(off < 1.2 * band, "{recipe} {}: {off} beside {band}", spec.name);
    }
    assert!(!counted.is_empty(), "{recipe}");
    for (found, expected) in counters.iter().zip(&counted) {
        let gemms = |counters: &Counters| {
            (counters.fprop, counters.dgrad, counters.wgrad, counters.high_precision, counters.non_finite)
        };
        assert_eq!(gemms(found), gemms(expected), "{recipe}");
    }
    let (again, same, _) = gradients(device, DType::Bf16, true, false, Some(layers::<B>(&config, recipe)));
    assert_eq!(again.to_bits(), loss.to_bits(), "{recipe}");
    for ((spec, found), (_, same)) in found.iter().zip(same.iter()) {
        assert_eq!(found.here().unwrap().f32(), same.here().unwrap().f32(), "{recipe} {}", spec.name);
    }
}

#[test]
fn gradients_in_fp8_follow_those_of_the_cpu_under_every_recipe() {
    let Some(card) = card() else { return };
    let cpu = Arc::new(CpuDevice::new(Isa::best(), Arc::new(Serial)));
    let device = CudaDevice::new(card, cpu.clone()).unwrap();
    for recipe in ["rowwise", "tensorwise", "rowwise_with_gw_hp"] {
        follows::<TorchaoRowwise>(&device, &cpu, recipe);
    }
    for recipe in ["delayed", "current", "blockwise"] {
        follows::<TransformerEngineHybrid>(&device, &cpu, recipe);
    }
}
