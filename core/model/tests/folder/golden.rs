//! The model of the PyTorch goldens, which lie beside a full checkout.

use std::path::Path;

use fp8flow_kernels::Serial;
use fp8flow_model::{ModelConfig, RopeScaling, SafeFile, Weights};

#[test]
fn the_golden_model_is_read_bit_for_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/hf-llama/model");
    if !folder.exists() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let config = ModelConfig::open(&folder).unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size, config.blocks), (64, 176, 2));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (4, 2, 16));
    assert_eq!((config.vocab_size, config.tied), (512, false));
    assert_eq!(config.rope.scaling, RopeScaling::None);
    assert_eq!(config.eos_token_ids, [2]);

    let masters = Weights::open(&folder, &config).unwrap().load(&Serial).unwrap();
    let file = SafeFile::open(folder.join("model.safetensors")).unwrap();
    assert_eq!(file.iter().count(), masters.specs().len());
    for (spec, tensor) in masters.iter() {
        let stored = file.get(&spec.name).unwrap();
        let bytes: Vec<u8> = tensor.f32().iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(bytes == stored.bytes, "{}", spec.name);
    }
}
