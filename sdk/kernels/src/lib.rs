//! FP8 formats, casts and scaled GEMM for CPUs.
//!
//! Building blocks for any backend, and for the model around it. Every function has one meaning, written down
//! as a scalar loop; the AVX2 and AVX-512 paths return the same bits, for any number of threads. That holds
//! because the order of every floating-point sum is a function of shapes alone:
//!
//! * a GEMM adds its products in ascending `k`, one output element at a time, with fused multiply-add;
//!   vectors run across outputs, never along `k`;
//! * a reduction along a row uses [`LANES`] partial sums in a fixed pattern on every path;
//! * maxima (`amax`) are exact in any order.
//!
//! Nothing here knows a recipe, a model or a plugin.

mod buffer;
pub mod cast;
mod element;
pub mod format;
pub mod gemm;
pub mod isa;
pub mod math;
pub mod matrix;
mod multiversion;
pub mod parallel;
pub mod philox;
mod rectangle;
pub mod scale;
pub mod transpose;

pub use buffer::Buffer;
pub use element::Element;
pub use format::Fp8;
pub use gemm::{Epilogue, Grid, Operand, Store, gemm, gemm_in, gemm_space};
pub use half::bf16;
pub use isa::Isa;
pub use matrix::{Elements, ElementsMut, Matrix, grid};
pub use parallel::{Parallel, Serial};
pub use rectangle::{Rectangle, Rectangles};

/// Partial sums of a reduction along a row: lane `j` adds elements `j, j + LANES, …`; part of the numerics revision.
pub const LANES: usize = 16;

/// Named in every cache key and lock: changes whenever any kernel may return other bits than before.
pub const NUMERICS_REVISION: u32 = 3;

/// Where a kernel runs: the instruction set to use and the threads to share.
#[derive(Clone, Copy)]
pub struct Cpu<'a> {
    /// The path to take; all give the same bits.
    pub isa: Isa,
    /// Runs the independent parts of a kernel.
    pub pool: &'a dyn Parallel,
}

impl<'a> Cpu<'a> {
    /// A CPU with `isa` and the threads of `pool`.
    pub fn new(isa: Isa, pool: &'a dyn Parallel) -> Self {
        Self { isa, pool }
    }
}

impl std::fmt::Debug for Cpu<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpu").field("isa", &self.isa).field("threads", &self.pool.threads()).finish()
    }
}
