//! What a layer has really done: the evidence behind "FP8 is proven, never assumed".

use serde::{Deserialize, Serialize};

/// Running totals of one layer since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// FP8 GEMMs run forward, training and recompute and evaluation together.
    pub fprop: u64,
    /// FP8 GEMMs run for the gradient of the input.
    pub dgrad: u64,
    /// FP8 GEMMs run for the gradient of the weight.
    pub wgrad: u64,
    /// GEMMs the recipe ran in high precision on purpose (such as wgrad of `rowwise_with_gw_hp`).
    pub high_precision: u64,
    /// Elements cast while telemetry was on: input, weight, output gradient.
    pub cast: [u64; 3],
    /// Of these, finite elements clipped to the format's largest number.
    pub saturated: [u64; 3],
    /// Of these, non-zero elements that became zero.
    pub underflowed: [u64; 3],
    /// Scales made from an infinite or NaN maximum: input, weight, output gradient. Counted always.
    pub non_finite: [u64; 3],
    /// Largest absolute value of the tensor last cast while telemetry was on, as far as it is finite: input, weight,
    /// output gradient.
    pub amax: [f64; 3],
    /// Micro-batches since the scale that was last used was made; 0 where every cast makes its own.
    pub scale_age: [u64; 3],
}
