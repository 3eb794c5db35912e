//! The conformance suite that a backend must pass.

pub mod driver;
pub mod host;
pub mod memory;
pub mod reference;
pub mod values;

pub use driver::{Failure, Gradients, Layers, Saved};
pub use host::host;
pub use memory::Guarded;
pub use reference::{Reference, snr_db};
pub use values::{Activations, Values, normal};
