//! Datasets, chat templates, tokenization, packing and batches.
#![forbid(unsafe_code)]

pub mod batch;
pub mod error;
pub mod order;
pub mod tokens;

pub use batch::MicroBatch;
pub use error::DataError;
pub use order::Order;
pub use tokens::{Example, MASKED, TokenSet};
