//! A safetensors file: as weights, as state of a recipe, as tokens.

use std::sync::LazyLock;

use fp8flow_data::TokenSet;
use fp8flow_kernels::Serial;
use fp8flow_model::{ModelConfig, SafeFile, Weights};
use fp8flow_train::RecipeState;

use crate::{Bound, Room, Target};

/// Headers become maps, and the crate that reads those of recipes and tokens holds a second one; bytes become f32 and
/// are copied. The constant is a row of findings for the small model.
pub(crate) const TARGET: Target =
    Target { name: "safetensors", read, bound: Bound { factor: 512, constant: super::MIB } };

static CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| {
    let text = r#"{"model_type":"llama","vocab_size":8,"hidden_size":8,"intermediate_size":8,
        "num_hidden_layers":1,"num_attention_heads":2}"#;
    ModelConfig::from_json(text, "config.json".as_ref()).expect("a configuration")
});

fn read(room: &Room, input: &[u8]) {
    let path = room.write("weights/model.safetensors", input);
    if let Ok(file) = SafeFile::open(&path) {
        let bytes: usize = file
            .iter()
            .map(|(name, tensor)| {
                assert!(file.get(name).is_some(), "`{name}` is listed but not there");
                tensor.bytes.len()
            })
            .sum();
        assert!(bytes <= input.len(), "more bytes of tensors than of the file");
    }
    if let Ok(weights) = Weights::open(room.path("weights"), &CONFIG) {
        let _ = weights.load(&Serial);
    }
    let _ = RecipeState::read(&path);
    if let Ok(tokens) = TokenSet::open(&path) {
        let _ = tokens.examples().map(|example| example.targets()).sum::<usize>();
    }
}
