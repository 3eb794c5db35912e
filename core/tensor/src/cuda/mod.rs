//! A card as a device.
//!
//! A file of kernels has a file of launchers beside it, of the same name: functions of tensors that are on a card, which
//! ask its stream for the work and come back at once. They panic where shapes or types do not fit together, as the CPU's
//! operations do: that is a bug of the caller.

pub mod adamw;
pub mod attention;
pub mod bias;
pub mod cross_entropy;
mod device;
mod digest;
pub mod elementwise;
pub mod embedding;
pub mod gather;
mod indices;
pub(crate) mod inspect;
mod launch;
mod linear;
mod loss;
pub mod reduce;
pub mod rms_norm;
mod room;
pub mod rope;
pub mod swiglu;

use fp8flow_cuda::Source;

pub use device::CudaDevice;
pub use digest::Digester;
pub use indices::Indices;

/// The kernels, by file.
pub const SOURCES: [Source; 19] = [
    adamw::SOURCE,
    attention::FORWARD,
    attention::BACKWARD,
    attention::DELTA,
    attention::PLAIN,
    attention::GROUPS_FORWARD,
    attention::GROUPS_DQ,
    attention::GROUPS_DKV,
    bias::SOURCE,
    cross_entropy::SOURCE,
    digest::SOURCE,
    elementwise::SOURCE,
    embedding::SOURCE,
    gather::SOURCE,
    inspect::SOURCE,
    reduce::SOURCE,
    rms_norm::SOURCE,
    rope::SOURCE,
    swiglu::SOURCE,
];
