//! A card as a device.

use fp8flow_cuda::{Source, source};

/// The kernels, by file.
pub const SOURCES: [Source; 1] = [source!("elementwise")];
