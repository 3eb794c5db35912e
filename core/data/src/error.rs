//! What can go wrong between a dataset file and a batch, said to the person who can act on it.

use std::path::PathBuf;

/// A failure while reading, tokenizing or batching data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
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
    /// A row of a dataset is not what its format says.
    #[error("{}: row {row} (line {line}): expected {expected}, found {found}", path.display())]
    Row {
        /// The dataset.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The line it begins at, or where the mistake is, from 1.
        line: u64,
        /// What the format wants there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A row that is fine by itself cannot be brought into the template or the vocabulary.
    #[error("row {row}: {message}")]
    Encode {
        /// The row, from 1.
        row: u64,
        /// What is wrong and what to do.
        message: String,
    },
    /// No template has this name.
    #[error("unknown template `{name}`: expected one of {known}")]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No format has this name.
    #[error("unknown format `{name}`: expected one of {known}")]
    UnknownFormat {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such choice of what is trained on.
    #[error("unknown loss `{name}`: expected `responses` or `all`")]
    UnknownLoss {
        /// The name asked for.
        name: String,
    },
    /// The tokenizer lacks a token that the template is made of.
    #[error("template `{template}` needs {missing}, which {} does not have; {advice}", tokenizer.display())]
    TemplateTokens {
        /// The template.
        template: &'static str,
        /// The tokens, quoted.
        missing: String,
        /// The tokenizer's file.
        tokenizer: PathBuf,
        /// Templates that would fit.
        advice: String,
    },
    /// The folder's own chat template cannot be used.
    #[error("the chat template of {}: {message}", path.display())]
    ChatTemplate {
        /// The file that holds it, or should.
        path: PathBuf,
        /// Why not, and what to do.
        message: String,
    },
    /// Records other than `tokens` were given without a tokenizer.
    #[error("these records are text: name a tokenizer (`tokenizer = \"model\"`) that turns them into tokens")]
    NeedsTokenizer,
    /// A set without one trainable example.
    #[error("no example is left to train on: {report}")]
    NothingLeft {
        /// What became of the rows.
        report: String,
    },
    /// The held-out part would be everything.
    #[error("`held_out` takes {held_out} of {examples} examples and leaves none to train on")]
    HeldOutTakesAll {
        /// Examples held out.
        held_out: usize,
        /// Examples there are.
        examples: usize,
    },
    /// A fraction outside 0..1.
    #[error("`held_out` is {fraction}: expected a count, or a fraction from 0 to below 1")]
    HeldOutFraction {
        /// The number given.
        fraction: f64,
    },
    /// A cutoff that leaves no position to predict.
    #[error("a cutoff of {cutoff} leaves nothing to predict: at least 2 tokens are needed")]
    Cutoff {
        /// The cutoff given.
        cutoff: usize,
    },
    /// All documents together are shorter than one block.
    #[error("{tokens} tokens do not fill one block of {length}: give more text or lower the block length")]
    NoBlock {
        /// Tokens there are, end tokens included.
        tokens: usize,
        /// The block length.
        length: usize,
    },
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
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
