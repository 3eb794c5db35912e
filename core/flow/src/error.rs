//! What can go wrong: in a stage, and in the engine around it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Class, Findings};

/// Why a stage has no result. Its class decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What the caller can do about it, as a class.
    pub class: Class,
    /// What went wrong: where, what was expected, what was found.
    pub message: String,
    /// What to do, as a sentence.
    pub help: Option<String>,
}

impl StageError {
    /// An error of `class`.
    pub fn new(class: Class, message: impl fmt::Display) -> Self {
        Self { class, message: message.to_string(), help: None }
    }

    /// The work itself failed: running it again gives the same.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Class::Failed, message)
    }

    /// A file that the workflow names is not valid.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(Class::Invalid, message)
    }

    /// A backend or a device is missing.
    pub fn missing(message: impl fmt::Display) -> Self {
        Self::new(Class::Missing, message)
    }

    /// A fault of the program or of a plugin.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(Class::Bug, message)
    }

    /// `path` could not be read or written.
    pub fn io(path: &Path, error: impl fmt::Display) -> Self {
        Self::new(Class::Io, format_args!("{}: {error}", path.display()))
    }

    /// Stopped from outside; `message` says what was saved.
    pub fn interrupted(message: impl fmt::Display) -> Self {
        Self::new(Class::Interrupted, message)
    }

    /// Adds a sentence on what to do.
    #[must_use]
    pub fn help(mut self, sentence: impl fmt::Display) -> Self {
        self.help = Some(sentence.to_string());
        self
    }
}

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The workflow is not valid; everything that is wrong with it.
    #[error("{0}")]
    Workflow(#[from] Box<Findings>),
    /// The workflow's file cannot be read.
    #[error("cannot read the workflow {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A stage has no result.
    #[error("stage `{stage}` {}: {error}", verb(error.class))]
    Stage {
        /// The run's folder.
        run: PathBuf,
        /// The stage.
        stage: String,
        /// Why.
        error: StageError,
    },
    /// Another process works on the run.
    #[error("the run {} is in use by another process{}", run.display(), owner.as_ref().map_or(String::new(), |o| format!(" ({o})")))]
    InUse {
        /// The run's folder.
        run: PathBuf,
        /// What the lock says about that process.
        owner: Option<String>,
    },
    /// A file of a run is not what the engine writes.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file of a run has the shape of another version.
    #[error("{} {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Which one.
        what: String,
    },
    /// A stage is only to be taken, and no result of it is stored.
    #[error("stage `{stage}` has no stored result, and is not to be run")]
    NoResult {
        /// The stage.
        stage: String,
    },
    /// A lock is not what the engine writes.
    #[error("{} is no lock: {what}", path.display())]
    InvalidLock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something is not as the lock has it.
    #[error("not as {} has it:{}", lock.display(), indented(differences))]
    NotAsLocked {
        /// The lock.
        lock: PathBuf,
        /// Everything that differs, in words.
        differences: Vec<String>,
    },
    /// There are no results that a lock could hold a run to.
    #[error("nothing to pin: no whole result of {stages}")]
    NothingToPin {
        /// The stages that have none.
        stages: String,
    },
    /// A run of the past is not done again.
    #[error("{}: {why}", run.display())]
    NotAgain {
        /// The run's folder.
        run: PathBuf,
        /// What the caller can do about it, as a class.
        class: Class,
        /// Why.
        why: String,
    },
    /// A file of the run cannot be read or written.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// A verb: `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn indented(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}

fn verb(class: Class) -> &'static str {
    match class {
        Class::Interrupted => "was interrupted",
        Class::Bug => "hit a bug",
        _ => "failed",
    }
}

impl Error {
    /// What the caller can do about it, as a class.
    pub fn class(&self) -> Class {
        match self {
            Self::Workflow(findings) => findings.class(),
            Self::Unreadable { error, .. } => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidData => {
                    Class::Invalid
                }
                _ => Class::Io,
            },
            Self::Stage { error, .. } => error.class,
            Self::NotAgain { class, .. } => *class,
            Self::InvalidLock { .. } => Class::Invalid,
            Self::NotAsLocked { .. } => Class::Locked,
            Self::NothingToPin { .. } | Self::NoResult { .. } => Class::Failed,
            Self::InUse { .. } | Self::Damaged { .. } | Self::Format { .. } | Self::Io { .. } => Class::Io,
        }
    }

    /// What to do, as a sentence, where there is something to say.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Stage { error, .. } => error.help.clone(),
            Self::InUse { .. } => {
                Some("Wait for it to end (--wait does), or start a run of its own with --fresh.".into())
            }
            Self::Format { .. } => Some("Look at this run with the version that made it.".into()),
            Self::NoResult { .. } => Some("Run without --only, or name that stage too.".into()),
            Self::InvalidLock { .. } => Some("Write it again with `fp8flow lock`.".into()),
            Self::NothingToPin { .. } => {
                Some("Run the workflow first: a lock holds runs to the results it has.".into())
            }
            Self::NotAsLocked { .. } => {
                Some("Put back what is locked, or run without --locked and then `fp8flow lock` again.".into())
            }
            _ => None,
        }
    }

    /// Whether something has the name already that was to be made.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists)
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { action, path, error }
    }
}
