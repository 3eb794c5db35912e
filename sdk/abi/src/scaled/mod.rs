//! A linear layer made from a table: which operand of which GEMM is cast how.
//!
//! FP8 recipes differ in formats, in which elements share a scale, and in where a scale comes from; what happens to
//! the codes afterwards is the same in all of them. An author writes down [`Gemms`], and [`ScaledLinear`] is the layer:
//! it casts an input once for its group and a weight once an optimizer step, keeps what backward reads, runs the three
//! GEMMs of [`crate::kernels`], and counts. A recipe whose scales come from earlier steps adds [`Scales`].
//!
//! An author whose layer does something else implements [`crate::Linear`] by hand; nothing here is needed for that.
//!
//! # Any number of tokens
//!
//! M is the length of wgrad's contraction, and FP8 tensor cores want that to be a multiple of 16. Rows of zeros change
//! nothing: they raise no maximum, their codes are zero, and a product with zero leaves the sum as it is. The kernels
//! here take any M and give the bits that padding would give; with M = 0 there is no GEMM to run (and none is counted).

#[cfg(feature = "cuda")]
mod card;
mod cast;
mod cpu;
mod linear;
mod operand;
mod primitives;
mod scales;
mod shapes;
mod weights;

pub use cast::{Cast, Dgrad, Fprop, Gemms, Granularity, Source, Wgrad};
pub use linear::ScaledLinear;
pub use operand::Role;
pub use primitives::Primitives;
pub use scales::{Later, Scales};
pub use weights::Generation;
