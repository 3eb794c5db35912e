//! Quantised bases: what `config.json` says of weights that are stored as codes, and the one kind that can be undone.
//!
//! A weight that lies in 4 or 8 bits has no room for an update of training, so a quantised base is refused, whoever made
//! it. FP8 with a scale for each block (`quant_method = "fp8"` with `weight_block_size`, as DeepSeek and Qwen publish it)
//! may be multiplied out to f32 masters instead, if that is asked for.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ModelError;

/// Where a configuration says that its weights are quantised; the second is the older key of compressed-tensors.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// Blocks that share a scale: `W[n,k] = code[n,k] · scale_inv[n / rows, k / cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockScales {
    /// Rows of a block.
    pub rows: usize,
    /// Columns of a block.
    pub cols: usize,
}

impl BlockScales {
    /// Shape of the scales of a weight `[N, K]`; blocks at the edges may be partial.
    pub fn grid(self, n: usize, k: usize) -> [usize; 2] {
        [n.div_ceil(self.rows), k.div_ceil(self.cols)]
    }
}

/// Takes what `config` says of quantisation out of it.
///
/// Without `dequantize` anything is an error; with it, anything but FP8 in blocks. `path` is where `config` was found.
pub(crate) fn take(
    config: &mut Map<String, Value>,
    path: &Path,
    dequantize: bool,
) -> Result<Option<BlockScales>, ModelError> {
    let mut blocks = None;
    for key in KEYS {
        let Some(found) = config.get(key).filter(|value| !value.is_null()) else { continue };
        let scales = block_scales(found);
        let (key, value) = match found.get("quant_method") {
            Some(method) => (format!("{key}.quant_method"), method),
            None => (key.to_owned(), found),
        };
        if !dequantize || scales.is_none() {
            return Err(ModelError::Quantized {
                path: path.to_path_buf(),
                key,
                found: crate::read_config::short(value),
                in_blocks: scales.is_some(),
                asked: dequantize,
            });
        }
        blocks = scales;
    }
    if dequantize {
        config.retain(|key, _| !KEYS.contains(&key.as_str()));
    }
    Ok(blocks)
}

/// The blocks of `{"quant_method": "fp8", "weight_block_size": [N, K]}`.
fn block_scales(quantization: &Value) -> Option<BlockScales> {
    let size = |value: &Value| value.as_u64().filter(|size| (1..=1 << 30).contains(size));
    if quantization.get("quant_method")? != "fp8" {
        return None;
    }
    match quantization.get("weight_block_size")?.as_array()?.as_slice() {
        [rows, cols] => Some(BlockScales { rows: size(rows)? as usize, cols: size(cols)? as usize }),
        _ => None,
    }
}
