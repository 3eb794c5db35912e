//! A run from outside: what its files say, and whether a process works on it. Nothing is written, and the lock is only
//! tried.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Crash, Error, Record, Status, events, lock, time};

/// A run, looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub record: Record,
    /// Where it stands.
    pub standing: Standing,
    /// Who works on it, if anybody does.
    pub holder: Option<String>,
    /// The call of a plugin that has killed it, if one did.
    pub crash: Option<Crash>,
}

/// Where a run stands, as far as can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A process works on it.
    Running,
    /// The process that worked on it is gone: killed, or crashed.
    Killed,
    /// Stopped from outside, state saved.
    Interrupted,
    /// A stage has no result.
    Failed,
    /// Every stage has its result.
    Finished,
}

impl Standing {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Killed => "killed",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Finished => "finished",
        }
    }

    /// Whether nobody works on it although there is work left.
    pub const fn is_unfinished(self) -> bool {
        !matches!(self, Self::Finished | Self::Running)
    }
}

impl Seen {
    /// Looks at the run in `folder`.
    pub fn look(folder: &Path) -> Result<Self, Error> {
        let mut holder = lock::holder(folder)?;
        // The record after the lock: a run that ended in between is not taken for a killed one.
        let record = Record::open(folder)?;
        if record.status == Status::Running && holder.is_none() {
            // Or it was taken up in between.
            holder = lock::holder(folder)?;
        }
        let standing = match (record.status, &holder) {
            (Status::Running, Some(_)) => Standing::Running,
            (Status::Running, None) => Standing::Killed,
            (Status::Interrupted, _) => Standing::Interrupted,
            (Status::Failed, _) => Standing::Failed,
            (Status::Finished, _) => Standing::Finished,
        };
        if standing != Standing::Running {
            // Its process is about to end, or has not begun.
            holder = None;
        }
        let crash = (standing == Standing::Killed).then(|| Crash::noted(folder)).flatten();
        Ok(Self { folder: folder.to_owned(), record, standing, holder, crash })
    }

    /// Seconds from its first beginning to its end, or to its last sign of life; pauses count.
    pub fn lasted(&self) -> f64 {
        let end = match self.standing {
            Standing::Running => Some(time::now()),
            Standing::Killed => {
                let events = std::fs::metadata(self.folder.join(events::FILE));
                events.and_then(|events| events.modified()).ok().map(time::of)
            }
            _ => None,
        };
        let end = end.as_deref().unwrap_or(&self.record.updated);
        time::between(&self.record.started, end).unwrap_or_default().max(0.0)
    }

    /// Whether a process works on it.
    pub fn is_running(&self) -> bool {
        self.standing == Standing::Running
    }
}
