//! NVIDIA cards for fp8flow: found at run time, never linked.
//!
//! [`Card::open`] looks for the driver, cuBLASLt and NVRTC, checks that every function it will call is there, and only
//! then calls one: a machine without a card, or with half a driver, gets an error, not a crash. Kernels are CUDA C
//! ([`Source`]) that includes nothing but the headers in `kernels/`; NVRTC compiles them for the card at hand, and the
//! machine code is kept on disk by content. FP8 products are cuBLASLt's, planned once and replayed.
//!
//! All work of a [`Card`] goes to one stream, in order; memory is taken before a run. What a kernel computes is
//! specified by the CPU function that its file names, and tested against it.

pub mod cache;
pub mod card;
pub mod cast;
pub mod check;
pub mod compile;
pub mod error;
pub mod event;
pub mod gemm;
pub mod launch;
pub mod library;
pub mod memory;
pub mod places;
pub mod source;
mod staging;

pub use card::{Architecture, Card, Properties};
pub use error::{Error, Result};
pub use event::Event;
pub use gemm::Gemm;
pub use launch::{Arg, Kernel, Shape};
pub use memory::Memory;
pub use source::Source;
