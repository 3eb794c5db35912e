//! The linear layers of a decoder by name, as a recipe is asked about them.

use fp8flow_sdk::LayerFacts;

use crate::ModelConfig;

/// The linear layers of a block that read the same input, in call order.
pub(crate) const GROUPS: [&[&str]; 4] = [
    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    &["self_attn.o_proj"],
    &["mlp.gate_proj", "mlp.up_proj"],
    &["mlp.down_proj"],
];

/// Every linear layer in the model's order, the output head last.
///
/// `tokens` is the largest M of a micro-batch, where known.
pub fn linear_layers(config: &ModelConfig, tokens: Option<usize>) -> Vec<LayerFacts> {
    let mut layers = Vec::new();
    for block in 0..config.blocks {
        for group in GROUPS {
            let names: Vec<String> =
                group.iter().map(|layer| format!("model.layers.{block}.{layer}")).collect();
            for (layer, name) in group.iter().zip(&names) {
                let (out_features, in_features) = shape(config, layer);
                layers.push(LayerFacts {
                    device: None,
                    name: name.clone(),
                    in_features,
                    out_features,
                    tokens,
                    block: Some(block),
                    group: names.clone(),
                });
            }
        }
    }
    layers.push(LayerFacts {
        device: None,
        name: OUTPUT_HEAD.into(),
        in_features: config.hidden_size,
        out_features: config.vocab_size,
        tokens,
        block: None,
        group: vec![OUTPUT_HEAD.into()],
    });
    layers
}

/// The output head's name; its product is part of the loss and stays in high precision.
pub const OUTPUT_HEAD: &str = "lm_head";

/// `(N, K)` of a layer of a block.
fn shape(config: &ModelConfig, layer: &str) -> (usize, usize) {
    let (h, mlp) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    match layer {
        "self_attn.q_proj" => (q, h),
        "self_attn.k_proj" | "self_attn.v_proj" => (kv, h),
        "self_attn.o_proj" => (h, q),
        "mlp.gate_proj" | "mlp.up_proj" => (mlp, h),
        "mlp.down_proj" => (h, mlp),
        other => unreachable!("no layer is called {other}"),
    }
}
