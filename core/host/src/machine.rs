//! What there is to run on: processor, memory, disk, cards. Facts; what they are worth is for others to judge.

mod allocator;
pub mod cuda;
mod disk;
mod memory;
mod processor;

pub use allocator::give_back_freed;
pub use cuda::Cuda;
pub use disk::Disk;
pub use memory::Memory;
pub use processor::{Processor, largest_cache};
