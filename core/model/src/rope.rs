//! Rotary tables.
use crate::ModelConfig;
use fp8flow_tensor::RopeTable;
pub fn table(config: &ModelConfig, positions: usize) -> RopeTable {
    let d = config.head_dim;
    let inv: Vec<f32> =
        (0..d / 2).map(|i| 1.0 / (config.rope.theta as f32).powf((2 * i) as f32 / d as f32)).collect();
    RopeTable::new(&inv, positions, 1.0)
}
