//! What can go wrong between a dataset file and a batch, said to the person who can act on it.

use std::path::PathBuf;

/// A failure while reading, tokenizing or batching data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Fewer examples than one optimizer step takes.
    #[error(
        "{examples} examples are fewer than the {per_step} of one step: lower `batch.per_step` or give more data"
    )]
    TooFewExamples {
        /// Examples there are.
        examples: usize,
        /// Examples a step takes.
        per_step: usize,
    },
    /// A step without examples.
    #[error("`batch.per_step` is 0: a step takes at least one example")]
    EmptyStep,
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
