//! A decoder's gradients on a card follow those on the CPU, and its own from call to call.

use std::path::Path;
use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{Batch, Decoder, DecoderOptions, ModelConfig, Parameters, initialise};
use fp8flow_tensor::{Arena, CpuDevice, CudaDevice, DType, Device, Tensor};

const CONFIG: &str = r#"{
    "model_type": "llama", "vocab_size": 300, "hidden_size": 128, "intermediate_size": 192,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": false, "dtype": "float32"
}"#;

/// Ends of the sequences of a micro-batch.
const SEQUENCES: [u32; 4] = [0, 17, 18, 70];

/// Loss and gradients of one micro-batch.
fn gradients(device: &dyn Device, dtype: DType, recompute: bool) -> (f64, Parameters) {
    let config = ModelConfig::from_json(CONFIG, Path::new("config.json")).unwrap();
    let parameters = initialise(&config, 7, &Serial).moved_to(device).unwrap();
    let options = DecoderOptions { dtype, tokens: 80, recompute };
    let mut decoder = Decoder::new(&config, options, None, &mut Arena::of(device)).unwrap();
    decoder.weights_changed(device, &parameters).unwrap();
    let mut gradients = Parameters::zeros_on(device, parameters.specs()).unwrap();
    let ids: Vec<u32> = (0..70).map(|t| (t * t + 3 * t) % 300).collect();
    let targets: Vec<i32> = (0..70).map(|t| if t % 5 == 0 { -1 } else { (t * 11) % 300 }).collect();
    let batch = Batch { ids: &ids, targets: &targets, sequences: &SEQUENCES };
    let found = decoder.train(device, &parameters, batch, 1.0 / 56.0, &mut gradients, false).unwrap();
    device.settle().unwrap();
    assert_eq!(found.targets, 56);
    (found.loss_sum, gradients)
}

/// The largest difference, by the largest element.
fn off(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (a.here().unwrap(), b.here().unwrap());
    let largest = b.f32().iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    a.f32().iter().zip(b.f32()).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn gradients_follow_those_of_the_cpu_and_are_the_same_each_time() {
    let Some(card) = card() else { return };
    let cpu = Arc::new(CpuDevice::new(Isa::best(), Arc::new(Serial)));
    let device = CudaDevice::new(card, cpu.clone()).unwrap();
    for (dtype, bound) in [(DType::F32, 2e-5), (DType::Bf16, 2e-2)] {
        let (expected_loss, expected) = gradients(&*cpu, dtype, false);
        let (loss, found) = gradients(&device, dtype, false);
        assert!((loss - expected_loss).abs() < f64::from(bound) * expected_loss, "{loss}, {expected_loss}");
        for ((spec, found), (_, expected)) in found.iter().zip(expected.iter()) {
            let off = off(found, expected);
            assert!(off < bound, "{dtype:?} {}: off by {off}", spec.name);
        }
        let (again, same) = gradients(&device, dtype, true);
        assert_eq!(again.to_bits(), loss.to_bits(), "{dtype:?}");
        for ((spec, found), (_, same)) in found.iter().zip(same.iter()) {
            assert_eq!(found.here().unwrap().f32(), same.here().unwrap().f32(), "{dtype:?} {}", spec.name);
        }
    }
}
