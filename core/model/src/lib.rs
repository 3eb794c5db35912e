//! The Llama family: Hugging Face folders in and out, forward and backward.

mod block;
pub mod config;
pub mod decoder;
mod decoder_error;
pub mod error;
mod folder;
mod layers;
mod linear;
mod mapping;
pub mod parameters;
mod read_config;
pub mod rope;
pub mod safe_file;
pub mod safe_writer;
pub mod weights;

pub use config::{ModelConfig, Rope, RopeScaling};
pub use decoder::{Batch, Decoder, DecoderOptions, Fp8Layers};
pub use decoder_error::DecoderError;
pub use error::{Finding, ModelError};
pub use layers::{OUTPUT_HEAD, linear_layers};
pub use parameters::{ParameterKind, ParameterSpec, Parameters, parameter_specs};
pub use safe_file::{SafeFile, StoredTensor};
pub use safe_writer::{NamedTensor, TensorData, Written, write_safetensors};
pub use safetensors::Dtype as StoredType;
pub use weights::Weights;
