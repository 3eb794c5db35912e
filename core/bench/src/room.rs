//! Whether there is memory for a case, asked before it is taken: a process that runs out of it is killed without a word.

use fp8flow_host::machine::Memory;

use crate::BenchError;

/// An error if the system says that there are fewer than `needed` bytes.
pub(crate) fn check(needed: u64) -> Result<(), BenchError> {
    match Memory::look() {
        Some(Memory { available, .. }) if available < needed => Err(BenchError::Memory { needed, available }),
        _ => Ok(()),
    }
}
