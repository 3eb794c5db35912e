//! A model's `config.json`.

use fp8flow_model::{ModelConfig, linear_layers, parameter_count, parameter_specs};

use crate::{Bound, Room, Target};

/// Its JSON tree.
pub(crate) const TARGET: Target =
    Target { name: "config", read, bound: Bound { factor: 256, constant: super::MIB } };

/// Blocks of a model whose parameters are written out; what a larger one takes is bounded by the number of blocks that
/// any may have.
const BLOCKS: usize = 64;

fn read(room: &Room, input: &[u8]) {
    let path = room.write("model/config.json", input);
    let config = ModelConfig::open(&path);
    let _ = ModelConfig::open_dequantized(&path);
    if let Ok(config) = config {
        let _ = parameter_count(&config);
        if config.blocks <= BLOCKS {
            let _ = (parameter_specs(&config).len(), linear_layers(&config, None).len());
        }
    }
}
