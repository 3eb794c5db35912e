//! The Llama family: Hugging Face folders in and out, forward and backward.

mod block;
pub mod config;
pub mod decoder;
mod decoder_error;
mod layers;
mod linear;
pub mod parameters;
pub mod rope;

pub use config::{ModelConfig, Rope, RopeScaling};
pub use decoder::{Batch, Decoder, DecoderOptions, Fp8Layers};
pub use decoder_error::DecoderError;
pub use layers::{OUTPUT_HEAD, linear_layers};
pub use parameters::{ParameterKind, ParameterSpec, Parameters, parameter_specs};
