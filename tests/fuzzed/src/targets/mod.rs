//! One file for each kind of input.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod dataset;
pub(crate) mod lock;
pub(crate) mod runs;
pub(crate) mod safetensors;
pub(crate) mod sidecar;
pub(crate) mod store;
pub(crate) mod tokenizer;
pub(crate) mod workflow;

/// Bytes that any target may hold.
const MIB: usize = 1 << 20;
