//! What there is to run on: processor, memory, disk, cards. Facts; what they are worth is for others to judge.

pub mod cuda;
mod disk;
mod memory;
mod processor;

pub use cuda::Cuda;
pub use disk::Disk;
pub use memory::Memory;
pub use processor::{Processor, largest_cache};
