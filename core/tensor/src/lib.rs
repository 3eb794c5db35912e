//! Tensors, and the operations of a decoder as forward and backward pairs, asked of a device.
//!
//! No autograd: a model is a straight line of [`Device`] calls, and each backward is written, named and tested
//! (against finite differences and PyTorch) beside its forward. All memory is allocated before the run from sizes
//! that are known; a [`Tensor`] has a capacity in rows, and a micro-batch uses as many as it has tokens.
//!
//! The CPU functions are the specification of every other device's kernels of the same name.

pub mod arena;
pub mod bytes;
pub mod check;
mod cpu;
pub mod cuda;
pub mod device;
pub mod digest;
pub mod inspect;
mod lanes;
mod ops;
mod space;
pub mod tensor;

pub use arena::Arena;
pub use bytes::Bytes;
pub use cpu::CpuDevice;
pub use cuda::CudaDevice;
pub use device::{AdamW, AttentionShape, CrossEntropy, Device, RopeTable, Rotation, Workload};
pub use fp8flow_cuda::{Architecture, Card, Error as CardError, Properties};
pub use tensor::{DType, Here, Tensor};
