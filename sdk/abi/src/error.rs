//! Errors as they cross the border: a kind to act on, a message, and what to do.

use serde::{Deserialize, Serialize};

/// What sort of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// An option, shape or type that the backend does not take.
    Invalid,
    /// Something the backend could do, but not here (device, instruction set, feature).
    Unsupported,
    /// A call out of the protocol's order: a bug of the engine.
    Protocol,
    /// The run was cancelled.
    Cancelled,
    /// The backend panicked; it is not called again.
    Panicked,
    /// Anything else that went wrong inside.
    Internal,
}

/// A failure inside a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}{}", .help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
pub struct Error {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// What was expected and what was found.
    pub message: String,
    /// What the person in front of the screen can do.
    pub help: Option<String>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None }
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Protocol`].
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(feature = "cuda")]
impl From<fp8flow_cuda::Error> for Error {
    fn from(error: fp8flow_cuda::Error) -> Self {
        let kind = match error {
            fp8flow_cuda::Error::Unsupported(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

/// A backend's result.
pub type Result<T> = std::result::Result<T, Error>;
