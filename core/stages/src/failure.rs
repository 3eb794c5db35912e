//! Errors of the crates below as errors of a stage: which class, what to do.

use std::path::{Path, PathBuf};

use fp8flow_data::DataError;
use fp8flow_flow::{Class, StageError};
use fp8flow_model::{DecoderError, ModelError};
use fp8flow_sdk::ErrorKind;
use fp8flow_train::TrainError;

/// The class of a backend's error: a panic is a bug, and so is a call out of order.
pub(crate) fn backend_class(error: &fp8flow_sdk::Error) -> Class {
    match error.kind {
        ErrorKind::Panicked | ErrorKind::Protocol => Class::Bug,
        ErrorKind::Cancelled => Class::Interrupted,
        _ => Class::Failed,
    }
}

/// `path` as an artifact keeps it: good wherever a later process starts.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, StageError> {
    std::path::absolute(path).map_err(|error| StageError::io(path, error))
}

/// The digest of a file.
pub(crate) fn digest(path: &Path) -> Result<String, StageError> {
    fp8flow_flow::digest::of_file(path).map(|(_, digest)| digest).map_err(|error| StageError::io(path, error))
}

/// Turns an error of a crate below into that of a stage.
pub(crate) trait OrFail<T> {
    fn or_fail(self) -> Result<T, StageError>;
}

impl<T, E: Into<Failure>> OrFail<T> for Result<T, E> {
    fn or_fail(self) -> Result<T, StageError> {
        self.map_err(|error| error.into().0)
    }
}

pub(crate) struct Failure(StageError);

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let class = match &error {
            DataError::Io { .. } => Class::Io,
            DataError::Cancelled => Class::Interrupted,
            _ => Class::Failed,
        };
        Self(StageError::new(class, error))
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let class = if matches!(error, ModelError::Io { .. }) { Class::Io } else { Class::Failed };
        Self(StageError::new(class, error))
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Data(error) => error.into(),
            TrainError::Model(error) => error.into(),
            TrainError::Io { .. } => Self(StageError::new(Class::Io, error)),
            TrainError::Interrupted { .. } => Self(StageError::interrupted(error)),
            TrainError::Decoder(
                DecoderError::Layer { ref source, .. } | DecoderError::Backend(ref source),
            ) => Self(StageError::new(backend_class(source), &error)),
            error => Self(StageError::failed(error)),
        }
    }
}
