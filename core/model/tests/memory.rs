//! What a decoder takes of memory, part by part.

#![cfg(test)]

use std::path::Path;

use fp8flow_kernels::Isa;
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers, ModelConfig, linear_layers};
use fp8flow_sdk::{Backend as _, Options};
use fp8flow_tensor::{Arena, DType};
use serde_json::json;
use torchao_rowwise::TorchaoRowwise;

const TOKENS: usize = 320;
const HIDDEN: usize = 64;
const MLP: usize = 176;
/// Outputs and inputs of a block's layers: eight heads of 8, four of keys and values.
const LAYERS: [[usize; 2]; 7] = [
    [HIDDEN, HIDDEN],
    [HIDDEN / 2, HIDDEN],
    [HIDDEN / 2, HIDDEN],
    [HIDDEN, HIDDEN],
    [MLP, HIDDEN],
    [MLP, HIDDEN],
    [HIDDEN, MLP],
];

/// Bytes of a decoder and of its backend.
fn measured(blocks: usize, dtype: DType, recompute: bool, fp8: bool) -> [usize; 2] {
    let config = json!({
        "model_type": "llama", "vocab_size": 300, "hidden_size": HIDDEN, "intermediate_size": MLP,
        "num_hidden_layers": blocks, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512,
    });
    let config = ModelConfig::from_json(&config.to_string(), Path::new("config.json")).unwrap();
    let fp8 = fp8.then(|| {
        let host = fp8flow_testkit::host(Isa::best(), 1);
        let info = TorchaoRowwise::recipes().into_iter().find(|info| info.name == "rowwise").unwrap();
        let options = info.options.iter().map(|option| (option.name.clone(), option.default.clone()));
        let recipe = TorchaoRowwise.recipe(&host, "rowwise", &Options(options.collect())).unwrap();
        let layers = linear_layers(&config, Some(TOKENS)).into_iter().filter(|layer| layer.block.is_some());
        let layers = layers.map(|layer| {
            let decision = recipe.decide(&layer);
            (layer, decision)
        });
        Fp8Layers { layers: layers.collect(), recipe }
    });
    let options = DecoderOptions { dtype, recompute, tokens: TOKENS };
    let decoder = Decoder::new(&config, options, fp8, &mut Arena::measure()).unwrap();
    [decoder.bytes(), decoder.backend_bytes()]
}

/// What each block adds, beside masters, moments and gradients.
fn growth(dtype: DType, recompute: bool, fp8: bool) -> [usize; 2] {
    let [two, three, nine] = [2, 3, 9].map(|blocks| measured(blocks, dtype, recompute, fp8));
    let growth = [three[0] - two[0], three[1] - two[1]];
    assert_eq!(
        [nine[0] - two[0], nine[1] - two[1]],
        growth.map(|bytes| 7 * bytes),
        "the same for every block"
    );
    growth
}

#[test]
fn with_recompute_a_block_adds_its_input_and_the_casts_of_its_weights() {
    // Codes twice, for fprop and for dgrad, each with a factor a row or a column; factors lie in whole lines.
    let line = |floats: usize| (4 * floats).next_multiple_of(64);
    let casts = LAYERS.map(|[n, k]| 2 * (n * k).next_multiple_of(64) + line(n) + line(k)).iter().sum();
    let weights: usize = LAYERS.iter().map(|[n, k]| n * k).sum();
    assert_eq!(growth(DType::Bf16, true, true), [2 * TOKENS * HIDDEN, casts]);
    assert_eq!(growth(DType::F32, true, true), [4 * TOKENS * HIDDEN, casts]);
    // In high precision: bf16 weights, or the masters themselves.
    assert_eq!(growth(DType::Bf16, true, false), [2 * TOKENS * HIDDEN + 2 * weights, 0]);
    assert_eq!(growth(DType::F32, true, false), [4 * TOKENS * HIDDEN, 0]);
}

#[test]
fn without_recompute_a_block_adds_all_that_its_backward_reads() {
    // Statistics of two norms and eight heads; the stream twice, q, k, v and what was attended; gate and up.
    let kept = TOKENS * (4 * 10 + 2 * (2 * HIDDEN + 3 * HIDDEN + 2 * MLP));
    // Per column of each group's input: codes and factors.
    let line = |floats: usize| (4 * floats).next_multiple_of(64);
    let inputs: usize = [HIDDEN, HIDDEN, HIDDEN, MLP].iter().map(|k| TOKENS * k + line(*k)).sum();
    assert_eq!(growth(DType::Bf16, false, true)[0], kept + inputs);
}

#[test]
fn the_largest_micro_batch_of_a_long_context_takes_nothing_to_measure() {
    let config = json!({
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
    });
    let config = ModelConfig::from_json(&config.to_string(), Path::new("config.json")).unwrap();
    let options = DecoderOptions { dtype: DType::Bf16, recompute: true, tokens: 16 * 131_072 };
    let began = std::time::Instant::now();
    let decoder = Decoder::new(&config, options, None, &mut Arena::measure()).unwrap();
    assert!(decoder.bytes() > 33 * 16 * 131_072 * 4096 * 2, "{} bytes", decoder.bytes());
    assert!(began.elapsed().as_secs() < 1, "{:?}", began.elapsed());
}
