//! The model of the training benchmark: a small Llama whose step takes about a second.

use std::path::Path;

use fp8flow_model::{ModelConfig, ModelError, ParameterKind, ParameterSpec, parameter_specs};
use serde_json::json;

/// Rows of the embedding, and random tokens to choose from.
pub const VOCABULARY: usize = 4096;
/// Blocks where nobody asks for another number: 27.8 million parameters.
pub const BLOCKS: usize = 8;
/// The longest sequence, unless a longer one is asked for.
const POSITIONS: usize = 512;

/// A model of so many blocks for sequences of so many tokens.
pub fn model(blocks: usize, sequence: usize) -> Result<ModelConfig, ModelError> {
    let config = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1408,
        "num_hidden_layers": blocks, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": sequence.max(POSITIONS), "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
    });
    ModelConfig::from_json(&config.to_string(), Path::new("the model of `fp8flow bench`"))
}

/// FLOPs of a token in a sequence of so many, forward and backward.
///
/// Six for every weight that it is multiplied with: two forward, two for the gradient of the input, two for that of the
/// weight. The embedding is looked up, not multiplied with. In attention a token meets itself and those before it,
/// `(sequence + 1) / 2` on average; the scores and the weighted values take `2 · head_dim` each a pair and head, and twice
/// that backward. What is computed a second time (recompute, the scores in attention's backward) is not counted.
pub fn flops_per_token(config: &ModelConfig, sequence: usize) -> u64 {
    let multiplied = |kind| match kind {
        ParameterKind::Matrix | ParameterKind::Head => true,
        ParameterKind::Embedding => config.tied,
        ParameterKind::Norm | ParameterKind::Bias => false,
    };
    let weights: usize =
        parameter_specs(config).iter().filter(|spec| multiplied(spec.kind)).map(ParameterSpec::len).sum();
    let attention = 6 * config.blocks * config.heads * config.head_dim * (sequence + 1);
    (6 * weights + attention) as u64
}

#[cfg(test)]
mod tests {
    use fp8flow_model::parameter_count;

    use super::*;

    #[test]
    fn it_is_the_model_of_the_peers() {
        let config = model(BLOCKS, 256).expect("a model");
        assert_eq!((config.head_dim, config.max_positions, config.tied), (64, 512, false));
        // Blocks: q and o 512 × 512, k and v 256 × 512, three of 1408 × 512, two norms; both ends; the last norm.
        let block = 2 * 262_144 + 2 * 131_072 + 3 * 720_896 + 2 * 512;
        assert_eq!(parameter_count(&config), 8 * block + 2 * 2_097_152 + 512);
        assert_eq!(parameter_count(&config), 27_795_968);
        assert_eq!(model(1, 2048).expect("a model").max_positions, 2048);
    }

    #[test]
    fn the_flops_of_a_token_are_those_counted_by_hand() {
        // 25,690,112 weights that are multiplied with, six FLOPs each: 154,140,672.
        // Attention: 128.5 keys on average, 8 heads of 64, 2 · 2 FLOPs forward and 4 · 2 backward, 8 blocks: 6,316,032.
        let config = model(BLOCKS, 256).expect("a model");
        assert_eq!(flops_per_token(&config, 256), 154_140_672 + 6_316_032);
        // Two tokens see one and two keys: a pair and a half, 12 · 512 each.
        let one = model(1, 2).expect("a model");
        assert_eq!(flops_per_token(&one, 2), 6 * (2_949_120 + 2_097_152) + 9_216);
        // The head is the embedding then, and is multiplied with once.
        let tied = ModelConfig { tied: true, ..one };
        assert_eq!(flops_per_token(&tied, 2), 6 * (2_949_120 + 2_097_152) + 9_216);
    }
}
