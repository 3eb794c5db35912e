//! What can go wrong in training.

use std::path::{Path, PathBuf};

use fp8flow_data::DataError;
use fp8flow_model::{DecoderError, ModelError};
use fp8flow_tensor::CardError;

use crate::invariants::Untrained;
use crate::proof::Shortfall;

/// A failure of a training run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model could not be run.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// A file of a model could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The examples do not make steps.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A loss, gradient or weight is infinite or NaN.
    #[error(
        "step {step}: {what} is not finite, first seen in {place}; lower the learning rate, clip the gradient or check the data"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// `the loss`, `the gradient` or `a weight`.
        what: &'static str,
        /// The first layer or parameter it was seen in.
        place: String,
    },
    /// An example does not fit the model.
    #[error(
        "an example of {tokens} tokens is longer than the {context} positions of the model; lower `cutoff` of the tokenization"
    )]
    TooLong {
        /// Tokens of the longest example.
        tokens: usize,
        /// Positions of the model.
        context: usize,
    },
    /// The tokens were made for a larger vocabulary.
    #[error(
        "the tokenizer has {tokenizer} tokens, the model's vocabulary only {model}; use the model's own tokenizer, or a configuration whose `vocab_size` is at least {tokenizer}"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// Layers that were to run in FP8 did not, or not as often.
    #[error(
        "{} of {of} FP8 layers did not run as planned (FP8 GEMMs as [fprop, dgrad, wgrad]): {}; the backend does not do what it says, use another one",
        layers.len(), few(layers.iter().map(Shortfall::to_string), "; ")
    )]
    NotFp8 {
        /// All of them, in the model's order.
        layers: Vec<Shortfall>,
        /// Layers planned as FP8.
        of: usize,
    },
    /// Parameters are not trained as they should be.
    #[error("step {step}: {}: {why}", few(parameters.iter().map(|name| format!("`{name}`")), ", "))]
    Untrained {
        /// The step, counted from 1.
        step: u64,
        /// All of them, in the model's order.
        parameters: Vec<String>,
        /// What is wrong with them.
        why: Untrained,
    },
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried; completes "cannot …".
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The disk has no room for what is to be saved.
    #[error(
        "{}: {needed} bytes are needed for checkpoints, {free} are free; make room and run again, it goes on from the newest checkpoint",
        folder.display()
    )]
    NoRoom {
        /// The folder of the checkpoints.
        folder: PathBuf,
        /// Bytes that will be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file of lines holds one that is none of its own.
    #[error("{} is damaged: line {number}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A checkpoint belongs to another run, or is not what this version writes.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The run was asked to stop; its state is saved.
    #[error("after step {step}; the state is saved, run again to go on")]
    Interrupted {
        /// The last step done.
        step: u64,
    },
}

impl TrainError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// The first of `items`, and how many more there are.
pub(crate) fn few(items: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    const SHOWN: usize = 4;
    let rest = items.len().saturating_sub(SHOWN);
    let shown = items.take(SHOWN).collect::<Vec<_>>().join(separator);
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}

impl From<CardError> for TrainError {
    fn from(error: CardError) -> Self {
        Self::Decoder(DecoderError::Card(error))
    }
}
