//! Everything the author of an fp8flow backend needs, and nothing of the engine.
//!
//! A backend is a shared library that brings FP8 recipes. Its author writes plain Rust against three traits:
//!
//! * [`Backend`]: the library as a whole; names its recipes and their options;
//! * [`Recipe`]: one configured recipe of one run; decides per layer, owns state that spans layers;
//! * [`Linear`]: one linear layer; runs its three GEMMs and says what it keeps in between;
//!
//! optionally a fourth, [`Kernels`]: `quantize` and `scaled_gemm` as primitives. [`export_backend!`] turns the type
//! into a library that any fp8flow of a compatible SDK version loads. How the calls cross the border is a private
//! matter of this crate; the same traits are the engine's own view, so a backend linked into a test and one loaded
//! from a file are used alike.
//!
//! A panic anywhere in a loaded backend is an error of the call it happened in, and that backend's last call. Events of
//! [`tracing`] are lines of the engine's log, under the plugin's name. Threads are the engine's: [`Host`] lends them.
//!
//! # The protocol of one micro-batch
//!
//! ```text
//! forward(Train) of every layer → Event::ForwardDone
//!   → per block, last to first: [forward(Recompute) of its layers] → backward of its layers
//!   → Event::BackwardDone
//! after the last micro-batch of a step: optimizer → Event::WeightsChanged
//! evaluation: forward(Eval) of every layer; leaves no trace in the recipe's state
//! ```

#[doc(hidden)]
pub mod abi;
pub mod backend;
pub mod call;
pub mod counters;
pub mod error;
pub mod host;
pub mod manifest;
pub mod options;
pub mod region;
pub mod scaled;
pub mod state;
pub mod tensor;

pub use backend::{Backend, Decision, Event, Kernels, LayerFacts, Linear, Precision, Recipe};
pub use call::{
    Backward, Forward, Group, Input, InputFormat, Memory, Pass, Quantize, QuantizedInput, ScaleAxis,
    ScaledGemm,
};
pub use counters::Counters;
pub use error::{Error, ErrorKind, Result};
pub use fp8flow_kernels as kernels;
pub use host::{Host, HostServices, Level};
pub use manifest::Manifest;
pub use options::{OptionField, OptionKind, Options, RecipeInfo};
pub use serde_json;
pub use state::{StateDict, StateTensor};
pub use tensor::{DType, DeviceId, TensorMut, TensorRef};
pub use tracing;
