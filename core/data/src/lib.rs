//! Datasets, chat templates, tokenization, packing and batches.
#![forbid(unsafe_code)]

pub mod batch;
pub mod error;
pub mod order;
pub mod record;
pub mod report;
pub mod split;
pub mod template;
pub mod tokenize;
pub mod tokenizer;
pub mod tokens;

pub use batch::MicroBatch;
pub use error::DataError;
pub use order::Order;
pub use record::{Conversation, Format, Record, Records, Role, Row, Turn};
pub use report::{Dropped, Reason, TokenReport};
pub use split::HeldOut;
pub use template::{Encoded, Encoder, Template};
pub use tokenize::{Loss, Tokenized, Tokenizing, tokenize};
pub use tokenizer::{Special, Tokenizer};
pub use tokens::{Example, MASKED, TokenSet};
