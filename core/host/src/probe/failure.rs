//! What happened to a child process that did not survive.

use std::process::ExitStatus;
use std::time::Duration;

use crate::crash::SIGNALS;

/// What happened to the child process.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    /// There is none.
    #[error("the process that should try it first cannot be started: {0}")]
    Spawn(std::io::Error),
    /// A signal ended it.
    #[error("it crashed with {signal} when it was tried in a process of its own, in `{step}`{output}")]
    Crashed {
        /// The last step that had begun.
        step: String,
        /// The signal's name.
        signal: String,
        /// What the process wrote, if anything.
        output: String,
    },
    /// It ended by itself.
    #[error("it ended the process ({status}) when it was tried in one of its own, in `{step}`{output}")]
    Exited {
        /// The last step that had begun.
        step: String,
        /// How it ended.
        status: ExitStatus,
        /// What the process wrote, if anything.
        output: String,
    },
    /// It did not come back.
    #[error("it did not come back within {} s when it was tried in a process of its own, in `{step}`", .timeout.as_secs_f32())]
    TimedOut {
        /// The last step that had begun.
        step: String,
        /// How long it was waited for.
        timeout: Duration,
    },
}

impl ProbeFailure {
    /// The same with other words for what the process wrote.
    pub(crate) fn said(mut self, words: impl FnOnce(&str) -> String) -> Self {
        if let Self::Crashed { output, .. } | Self::Exited { output, .. } = &mut self {
            *output = words(output);
        }
        self
    }
}

/// The end of what a process wrote, as the end of a message.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let printable = |line: &&str| line.replace(char::is_control, " ");
    let last: Vec<_> = lines[lines.len().saturating_sub(4)..].iter().map(printable).collect();
    if last.is_empty() { String::new() } else { format!("; it wrote: {}", last.join(" / ")) }
}

pub(super) fn signal_name(signal: i32) -> String {
    let mut known = SIGNALS.into_iter().chain([(libc::SIGKILL, "SIGKILL")]);
    known.find(|(known, _)| *known == signal).map_or(format!("signal {signal}"), |(_, name)| name.to_owned())
}
