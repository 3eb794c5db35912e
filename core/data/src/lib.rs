//! From a dataset file to the batches of a step.
//!
//! * [`Records`] reads rows, one after another, whatever format they are in;
//! * an [`Encoder`] (a [`Tokenizer`] and a [`Template`] that fit each other) writes conversations as tokens and knows
//!   which of them are answers;
//! * [`tokenize()`] makes of the records a [`TokenSet`] to train on, one held out, and a [`TokenReport`] in which every
//!   row has its place; [`TokenSet::blocks`] cuts documents into blocks for pre-training;
//! * an [`Order`] says which examples a step takes, and a [`MicroBatch`] lays them end to end.
//!
//! Everything is a function of the files, the options and a seed: no thread count, clock or hash order shows. Files
//! may be hostile: what is read is bounded, and a wrong file is an error that names it.
//!
//! ```
//! use fp8flow_data::{MicroBatch, Order, Record, Row, Tokenizing, tokenize};
//! use fp8flow_kernels::Serial;
//!
//! let rows = (1..=10).map(|number| {
//!     let ids = vec![number as u32; 4];
//!     Ok(Row { number, record: Ok(Record::Tokens { ids, labels: None }) })
//! });
//! let data = tokenize(rows, &Tokenizing::default(), &Serial, &|| false)?;
//! let order = Order::new(data.train.len(), 4, 42, true)?;
//! let batch = MicroBatch::new(&data.train, &order.step(0));
//! assert_eq!((batch.tokens(), batch.target_count()), (16, 12));
//! assert_eq!((order.steps_per_epoch(), order.left_out_per_epoch()), (2, 2));
//! # Ok::<(), fp8flow_data::DataError>(())
//! ```
#![forbid(unsafe_code)]

pub mod batch;
pub mod blocks;
pub mod error;
pub mod order;
pub mod record;
pub mod report;
pub mod split;
mod store;
pub mod template;
pub mod tokenize;
pub mod tokenizer;
pub mod tokens;

pub use batch::MicroBatch;
pub use blocks::Blocks;
pub use error::DataError;
pub use order::Order;
pub use record::{Conversation, Format, Record, Records, Role, Row, Turn};
pub use report::{Dropped, Reason, TokenReport};
pub use split::HeldOut;
pub use template::{Encoded, Encoder, Template};
pub use tokenize::{Loss, Tokenized, Tokenizing, tokenize};
pub use tokenizer::{Special, Tokenizer};
pub use tokens::{Example, MASKED, TokenSet};
