//! Errors of the crates below as errors of a stage: which class, what to do.

use std::path::{Path, PathBuf};

use fp8flow_data::DataError;
use fp8flow_flow::{Class, StageCx, StageError};
use fp8flow_host::HostError;
use fp8flow_host::package::PackageError;
use fp8flow_model::{DecoderError, ModelError};
use fp8flow_sdk::ErrorKind;
use fp8flow_train::TrainError;

/// The class of a backend's error: a panic is a bug, and so is a call out of order.
pub fn backend_class(error: &fp8flow_sdk::Error) -> Class {
    match error.kind {
        ErrorKind::Panicked | ErrorKind::Protocol => Class::Bug,
        ErrorKind::Cancelled => Class::Interrupted,
        _ => Class::Failed,
    }
}

/// The class of an error of the host: get another plugin, or report a bug of this one.
pub fn host_class(error: &HostError) -> Class {
    match error {
        HostError::Call(error) => backend_class(error),
        HostError::Package(PackageError::Io { .. } | PackageError::Read { .. } | PackageError::Exists(_)) => {
            Class::Io
        }
        HostError::Package(PackageError::Installed { .. } | PackageError::InTheWay { .. }) => Class::Failed,
        _ => Class::Missing,
    }
}

/// The class of a training error.
pub fn train_class(error: &TrainError) -> Class {
    match error {
        TrainError::Data(error) => data_class(error),
        TrainError::Model(error) => model_class(error),
        TrainError::Io { .. } | TrainError::NoRoom { .. } | TrainError::Line { .. } => Class::Io,
        TrainError::Interrupted { .. } => Class::Interrupted,
        TrainError::Decoder(DecoderError::Layer { source, .. } | DecoderError::Backend(source)) => {
            backend_class(source)
        }
        _ => Class::Failed,
    }
}

fn data_class(error: &DataError) -> Class {
    match error {
        DataError::Io { .. } => Class::Io,
        DataError::Cancelled => Class::Interrupted,
        _ => Class::Failed,
    }
}

fn model_class(error: &ModelError) -> Class {
    match error {
        ModelError::Io { .. } => Class::Io,
        ModelError::Stopped => Class::Interrupted,
        _ => Class::Failed,
    }
}

/// `path` as an artifact keeps it: good wherever a later process starts.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, StageError> {
    std::path::absolute(path).map_err(|error| StageError::io(path, error))
}

/// The digest of a file, unless the stage of `cx` is to stop.
pub(crate) fn digest(cx: &StageCx<'_>, path: &Path) -> Result<String, StageError> {
    let found = fp8flow_flow::digest::of_file_while(path, || !cx.cancelled());
    match found.map_err(|error| StageError::io(path, error))? {
        Some((_, digest)) => Ok(digest),
        None => Err(StageError::interrupted("stopped as asked")),
    }
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
        Self(StageError::new(data_class(&error), error))
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self(StageError::new(model_class(&error), error))
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self(StageError::new(train_class(&error), error))
    }
}
