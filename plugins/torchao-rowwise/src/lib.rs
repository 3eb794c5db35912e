//! torchao's float8 training recipes, as an fp8flow backend.
//!
//! Three recipes, with the formats, axes and scale rules of `torchao.float8.Float8LinearConfig`:
//!
//! | recipe | scales | gradients | wgrad |
//! | --- | --- | --- | --- |
//! | `rowwise` | one a row of each operand as its GEMM contracts it, powers of two | e4m3 | FP8 |
//! | `tensorwise` | one a tensor | e5m2 | FP8 |
//! | `rowwise_with_gw_hp` | as `rowwise`; the weight in dgrad by tensor | e4m3 | high precision |
//!
//! All scaling is dynamic: a scale comes from the tensor being cast, nothing is carried from step to step, and a
//! recomputed forward gives the same bits by itself.
//!
//! # What is done better, with the same bits
//!
//! * The scales are applied in the GEMM's epilogue. torchao rounds dgrad and wgrad to bf16 first and multiplies
//!   afterwards; for powers of two that is the same number.
//! * What is kept for wgrad is the input's codes by column (one byte an element), not the bf16 input: wgrad reads
//!   nothing else. Only `rowwise_with_gw_hp` needs the input itself.
//! * An input is cast once for all the layers that read it, both ways in one go; a weight once an optimizer step.
//!
//! # Where the bits differ from torchao, on purpose
//!
//! * `dW` is the f32 sum times its scales, not rounded to bf16 in between.
//! * `y` and `dx` have the type of the activations; torchao's rowwise GEMM rounds f32 models to bf16.
//! * A power-of-two scale is found by clearing the mantissa, never by `exp2(floor(log2(s)))`, which for some f32
//!   maxima rounds up and then clips the maximum itself. For bf16 tensors both are equal.
//! * Scales that are not powers of two are applied to the f32 sum, with one rounding instead of torchao's two.
//! * No tokens at all, and any number of them, are fine.
//!
//! # Map
//!
//! [`recipes`] is the table of the recipes' casts, `recipe` decides and describes; [`fp8flow_sdk::scaled`] carries it out.

mod recipe;
pub mod recipes;

use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::Primitives;
use fp8flow_sdk::{
    Backend, Error, Host, Kernels, OptionField, OptionKind, Options, Recipe, RecipeInfo, Result,
};

use crate::recipes::{POWER_OF_TWO, RecipeName};

/// The backend; it holds nothing, every run configures its own recipe.
#[derive(Debug)]
pub struct TorchaoRowwise;

impl Backend for TorchaoRowwise {
    fn start(_host: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        RecipeName::ALL
            .into_iter()
            .map(|name| RecipeInfo {
                name: name.as_str().into(),
                about: name.about().into(),
                options: vec![OptionField {
                    name: POWER_OF_TWO.into(),
                    kind: OptionKind::Bool,
                    default: name.rounds_scales_to_power_of_2().into(),
                    about:
                        "Round every scale down to a power of two, so that applying and undoing it is exact."
                            .into(),
                }],
            })
            .collect()
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let name = RecipeName::from_name(name).ok_or_else(|| {
            let known = RecipeName::ALL.map(RecipeName::as_str).join(", ");
            Error::invalid(format!("torchao-rowwise has no recipe `{name}`"))
                .with_help(format!("it has {known}"))
        })?;
        Ok(Box::new(recipe::Configured::new(host.clone(), name, options.bool(POWER_OF_TWO)?)))
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        Some(Box::new(Primitives::new(host.clone(), [ScaleRule::Linear, ScaleRule::PowerOfTwo])))
    }
}

fp8flow_sdk::export_backend!(
    TorchaoRowwise,
    recipes = ["rowwise", "tensorwise", "rowwise_with_gw_hp"],
    devices = ["cpu", "cuda"]
);
