//! The Llama family: Hugging Face folders in and out, forward and backward.

mod block;
pub mod config;
pub mod decoder;
mod decoder_error;
pub mod error;
pub mod export;
mod folder;
pub mod init;
mod layers;
mod linear;
mod mapping;
pub mod new_file;
pub mod parameters;
mod quantization;
mod read_config;
mod rope;
pub mod safe_file;
pub mod safe_writer;
mod staged_folder;
mod stored;
mod tasks;
pub mod weights;

pub use config::{ModelConfig, Rope, RopeScaling};
pub use decoder::{Batch, Decoder, DecoderOptions, Fp8Layers};
pub use decoder_error::DecoderError;
pub use error::{Finding, ModelError};
pub use export::{ExportOptions, ExportType, ExportedFile, companion_files, export};
pub use init::initialise;
pub use layers::{OUTPUT_HEAD, linear_layers};
pub use new_file::Written;
pub use parameters::{ParameterKind, ParameterSpec, Parameters, parameter_specs};
pub use quantization::BlockScales;
pub use safe_file::{SafeFile, StoredTensor};
pub use safe_writer::{NamedTensor, TensorData, write_safetensors};
pub use safetensors::Dtype as StoredType;
pub use weights::Weights;
