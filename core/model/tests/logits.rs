//! Logits against transformers: tied and untied heads, biases, shards, stored types, scaled rotary embeddings.

#![cfg(test)]

use std::path::Path;
use std::sync::Arc;

use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{Batch, Decoder, DecoderOptions, ModelConfig, SafeFile, Weights};
use fp8flow_tensor::{Arena, CpuDevice, DType};

#[test]
fn logits_are_those_of_transformers() {
    let device = CpuDevice::new(Isa::best(), Arc::new(Serial));
    for name in ["untied-f32", "tied-bf16-sharded", "old-spelling-f16"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let config = ModelConfig::open(&folder).unwrap();
        let parameters = Weights::open(&folder, &config).unwrap().load(&Serial).unwrap();
        let expected = SafeFile::open(folder.join("expected.safetensors")).unwrap();
        let ids = expected.get("input_ids").unwrap();
        let [rows, length] = *ids.shape else { panic!("two dimensions") };
        let ids: Vec<u32> =
            ids.bytes.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap()) as u32).collect();
        let logits = expected.get("logits").unwrap();
        let logits: Vec<f32> =
            logits.bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();

        let options = DecoderOptions { dtype: DType::F32, recompute: false, tokens: ids.len() };
        let mut decoder = Decoder::new(&config, options, None, &mut Arena::allocate()).unwrap();
        decoder.weights_changed(&device, &parameters).unwrap();
        let targets = vec![-1; ids.len()];
        let sequences: Vec<u32> = (0..=rows).map(|row| (row * length) as u32).collect();
        let batch = Batch { ids: &ids, targets: &targets, sequences: &sequences };
        let found = decoder.logits(&device, &parameters, batch).unwrap();

        let largest = logits.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
        let worst = found.f32().iter().zip(&logits).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
        println!("{name}: {worst:.1e} of {largest:.2}");
        assert_eq!(found.f32().len(), logits.len());
        assert!(worst <= 1e-5 * largest, "{name}: {worst:e} of {largest}");
    }
}
