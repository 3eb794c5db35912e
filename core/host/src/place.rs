//! Where plugins are looked for, and what was seen there.

use std::fmt;
use std::path::PathBuf;

/// Who named a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    CommandLine,
    /// The environment variable `FP8FLOW_PLUGIN_PATH`.
    Environment,
    /// The workflow.
    Workflow,
    /// The user's own folder.
    User,
    /// The folder of the executable, and what Cargo builds into beside it.
    Executable,
    /// Nobody: the plugin was asked for by its path.
    Path,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "the command line",
            Self::Environment => "FP8FLOW_PLUGIN_PATH",
            Self::Workflow => "the workflow",
            Self::User => "the user's folder",
            Self::Executable => "beside the executable",
            Self::Path => "by its path",
        })
    }
}

/// A folder of plugins, or a plugin's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who named it.
    pub origin: Origin,
    /// Where it is.
    pub path: PathBuf,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.origin)
    }
}

/// A place and what was seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The place.
    pub place: Place,
    /// Why it, or a file in it, was passed over, one line each.
    pub notes: Vec<String>,
}

/// Every place that was searched, in order, and why it was passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub Vec<Step>);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Step { place, notes }) in self.0.iter().enumerate() {
            let before = if i == 0 { "" } else { "\n" };
            write!(f, "{before}  {place}")?;
            match notes.as_slice() {
                [] => {}
                [note] => write!(f, ": {note}")?,
                notes => notes.iter().try_for_each(|note| write!(f, "\n    {note}"))?,
            }
        }
        Ok(())
    }
}
