//! What can go wrong in a benchmark.

use fp8flow_flow::Class;
use fp8flow_host::HostError;
use fp8flow_model::ModelError;
use fp8flow_sdk::Error;
use fp8flow_stages::{backend_class, host_class, train_class};
use fp8flow_tensor::CardError;
use fp8flow_train::TrainError;

/// Why something was not measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no such plugin or recipe, or it does not come through the doors.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The plugin failed in a call.
    #[error("the backend failed: {0}")]
    Backend(#[from] Error),
    /// The recipe was challenged with a small layer, and did not compute in FP8.
    #[error("recipe `{recipe}` was challenged with a small layer: {why}")]
    NotFp8 {
        /// Its name.
        recipe: String,
        /// What speaks against it.
        why: String,
    },
    /// The card failed.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The training loop failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// There is less memory than the case takes.
    #[error("not enough memory: this takes {:.1} GB, and {:.1} GB are available", *.needed as f64 / 1e9, *.available as f64 / 1e9)]
    Memory {
        /// Bytes that the case takes.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// No folder for the run.
    #[error("cannot create a temporary folder: {0}")]
    Folder(#[source] std::io::Error),
    /// Stopped from outside.
    #[error("stopped before all was measured")]
    Interrupted,
}

impl BenchError {
    /// What a user can do about it, and the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Host(error) => host_class(error),
            Self::Backend(error) => backend_class(error),
            Self::Train(error) => train_class(error),
            Self::Card(CardError::Missing { .. } | CardError::Unusable { .. }) => Class::Missing,
            Self::Card(_) | Self::NotFp8 { .. } | Self::Memory { .. } => Class::Failed,
            Self::Folder(_) => Class::Io,
            Self::Interrupted => Class::Interrupted,
        }
    }
}

impl From<ModelError> for BenchError {
    fn from(error: ModelError) -> Self {
        Self::Train(error.into())
    }
}
