//! The models of the training benchmarks: a small Llama whose step takes about a second on a CPU, and Llama-3's shapes.

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
    config([VOCABULARY, 512, 1408, blocks, 8, 4], sequence.max(POSITIONS), false)
}

/// Vocabulary, hidden, intermediate, blocks, heads, key and value heads.
fn config(
    [vocabulary, hidden, intermediate, blocks, heads, kv_heads]: [usize; 6],
    positions: usize,
    tied: bool,
) -> Result<ModelConfig, ModelError> {
    let config = json!({
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": positions, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied,
    });
    ModelConfig::from_json(&config.to_string(), Path::new("the model of `fp8flow bench`"))
}

/// The shape of a model, which is trained from random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// That of [`model`].
    Small,
    /// That of Llama-3.2-1B: 1.24 billion parameters, heads of 64, the head tied to the embedding.
    Llama1B,
    /// That of Llama-3-8B: 8.03 billion parameters, heads of 128.
    Llama8B,
}

impl Size {
    /// Its name in lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Llama1B => "1b",
            Self::Llama8B => "8b",
        }
    }

    /// Its blocks.
    pub const fn blocks(self) -> usize {
        match self {
            Self::Small => BLOCKS,
            Self::Llama1B => 16,
            Self::Llama8B => 32,
        }
    }

    /// The same with so many blocks, for sequences of so many tokens.
    pub fn config(self, blocks: usize, sequence: usize) -> Result<ModelConfig, ModelError> {
        match self {
            Self::Small => model(blocks, sequence),
            Self::Llama1B => config([128_256, 2048, 8192, blocks, 32, 8], sequence, true),
            Self::Llama8B => config([128_256, 4096, 14_336, blocks, 32, 8], sequence, false),
        }
    }
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
    fn llamas_have_their_parameters_and_the_flops_that_others_count() {
        let of = |size: Size| size.config(size.blocks(), 8192).expect("a model");
        assert_eq!(parameter_count(&of(Size::Llama1B)), 1_235_814_400);
        assert_eq!(parameter_count(&of(Size::Llama8B)), 8_030_261_248);
        // Megatron-Bridge counts 51.5 GFLOP a token.
        let flops = flops_per_token(&of(Size::Llama8B), 8192) as f64;
        assert!((flops - 51.5e9).abs() < 0.05e9, "{flops}");
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
