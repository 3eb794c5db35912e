//! Transformer Engine's FP8 recipes, as an fp8flow backend.
//!
//! | recipe | Transformer Engine's | scales | formats |
//! | --- | --- | --- | --- |
//! | `delayed` | `DelayedScaling` | one a tensor, from the maxima of earlier micro-batches | e4m3, gradients e5m2 (HYBRID) |
//! | `current` | `Float8CurrentScaling` | one a tensor, from its own maximum | e4m3, gradients e5m2 (HYBRID) |
//! | `blockwise` | `Float8BlockScaling` | 1×128 for activations and gradients, 128×128 for weights; powers of two | e4m3 |
//!
//! # Delayed scaling, in order
//!
//! A micro-batch casts with the scales that are there and notes each tensor's absolute maximum (of the tensor itself,
//! before scaling, NaN left out). When all layers have run forward, the histories of inputs and weights take the new
//! maxima and their scales are made anew; when all have run backward, those of gradients. What was cast keeps the
//! factor it was cast with. The update itself is [`history::update`].
//!
//! * A weight is cast once an optimizer step, with the scale of that moment; its history moves once a step. That is
//!   Transformer Engine with `is_first_microbatch`.
//! * A forward for evaluation uses the scales and leaves no trace.
//! * A recomputed forward uses the scales of the first one, whatever they have become since, and leaves no trace.
//!
//! # Where it differs from Transformer Engine, on purpose
//!
//! * Evaluation leaves nothing in a history; there, its maxima leak into the next update.
//! * A longer or shorter history keeps its newest entries; there, a shorter one keeps the oldest.
//! * Any number of tokens is fine; there, it must be a multiple of 8, and fails in wgrad unless it is one of 16.
//! * Layers that read one input share its cast. Their histories are equal, so the bits are too.
//! * All three GEMMs accumulate in f32; a tensor core's fast accumulation (fprop) keeps fewer bits.
//! * `warm_start` is ours: the first micro-batch, for which there is no history, is scaled by its own maxima.
//! * State is two small tensors a layer in a safetensors file, never a pickle.
//!
//! # Map
//!
//! [`recipes`] is the table of casts and options; [`history`] the update of a scale; `delayed` the histories of a
//! layer; `recipe` puts them together. [`fp8flow_sdk::scaled`] carries the casts and GEMMs out.

mod delayed;
pub mod history;
mod recipe;
pub mod recipes;

use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::Primitives;
use fp8flow_sdk::{Backend, Error, Host, Kernels, Options, Recipe, RecipeInfo, Result};

use crate::recipes::RecipeName;

/// The backend; it holds nothing, every run configures its own recipe.
#[derive(Debug)]
pub struct TransformerEngineHybrid;

impl Backend for TransformerEngineHybrid {
    fn start(_host: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        RecipeName::ALL.map(RecipeName::info).into()
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let name = RecipeName::from_name(name).ok_or_else(|| {
            let known = RecipeName::ALL.map(RecipeName::as_str).join(", ");
            Error::invalid(format!("transformer-engine-hybrid has no recipe `{name}`"))
                .with_help(format!("it has {known}"))
        })?;
        Ok(Box::new(recipe::Configured::new(host.clone(), name, options)?))
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        Some(Box::new(Primitives::new(host.clone(), [ScaleRule::FiniteLinear, ScaleRule::FinitePowerOfTwo])))
    }
}

fp8flow_sdk::export_backend!(
    TransformerEngineHybrid,
    recipes = ["delayed", "current", "blockwise"],
    devices = ["cpu", "cuda"]
);
