//! The Llama family: Hugging Face folders in and out, forward and backward.

pub mod config;
pub mod parameters;

pub use config::{ModelConfig, Rope, RopeScaling};
pub use parameters::{ParameterKind, ParameterSpec, Parameters, parameter_specs};
