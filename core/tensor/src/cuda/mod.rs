//! A card as a device.

mod digest;

use fp8flow_cuda::{Source, source};

pub use digest::digests;

/// The kernels, by file.
pub const SOURCES: [Source; 2] = [digest::SOURCE, source!("elementwise")];
