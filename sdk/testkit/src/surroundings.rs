//! What a process shares with everything in it, besides memory: a plugin is a guest there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The surroundings before anything of a plugin was in the process.
static BEFORE: OnceLock<Surroundings> = OnceLock::new();

/// Notes how things are, before a plugin's library is opened: `surroundings` then also sees what that has changed. Nothing
/// else may run in the process.
pub fn remember() {
    let _ = BEFORE.set(Surroundings::now());
}

/// What can be asked without changing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    working_directory: Option<PathBuf>,
    environment: BTreeMap<OsString, OsString>,
    /// Lines of the system's description of the process: masks of signals and of files, processors that may be used.
    status: BTreeMap<&'static str, String>,
    /// Where standard input, output and errors lead.
    streams: [Option<PathBuf>; 3],
    /// What only a process with nothing else at work can tell.
    alone: Option<Alone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Alone {
    threads: usize,
    children: usize,
}

/// Lines of `/proc/thread-self/status`, and what they are.
const STATUS: [(&str, &str); 5] = [
    ("Umask", "the mask of new files' permissions"),
    ("SigBlk", "the signals that are blocked"),
    ("SigIgn", "the signals that are ignored"),
    ("SigCgt", "the signals that are handled"),
    ("Cpus_allowed_list", "the processors that may be used"),
];

/// Signals 32 and 33, which the C library handles itself once there is a second thread.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

impl Surroundings {
    /// As they were remembered.
    pub(crate) fn before() -> Option<&'static Self> {
        BEFORE.get()
    }

    /// As they are.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let line = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = value.unwrap_or_default().trim();
            match u64::from_str_radix(value, 16) {
                Ok(signals) if name.starts_with("Sig") => format!("{:016x}", signals & !OF_THE_C_LIBRARY),
                _ => value.to_owned(),
            }
        };
        let stream = |fd: usize| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        Self {
            working_directory: std::env::current_dir().ok(),
            environment: std::env::vars_os().collect(),
            status: STATUS.iter().map(|(name, what)| (*what, line(name))).collect(),
            streams: [0, 1, 2].map(stream),
            alone: Some(Alone { threads: tasks().count(), children: children() }),
        }
    }

    /// The same without what others in this process may change.
    pub(crate) fn shared(self) -> Self {
        Self { alone: None, ..self }
    }

    /// The same as if this thread were not there.
    pub(crate) fn without_this_thread(self) -> Self {
        let alone = self.alone.map(|alone| Alone { threads: alone.threads.saturating_sub(1), ..alone });
        Self { alone, ..self }
    }

    /// What is otherwise `now`, in words.
    pub(crate) fn changed(&self, now: &Self) -> Option<String> {
        let variable =
            self.environment.iter().find(|(name, value)| now.environment.get(*name) != Some(value));
        let variable = variable
            .or_else(|| now.environment.iter().find(|(name, _)| !self.environment.contains_key(*name)));
        if self.working_directory != now.working_directory {
            return Some("the working directory".into());
        }
        if let Some((name, _)) = variable {
            return Some(format!("the environment variable {}", name.display()));
        }
        if let Some((what, _)) = self.status.iter().find(|(what, value)| now.status.get(*what) != Some(value))
        {
            return Some((*what).to_owned());
        }
        let streams = ["the standard input", "the standard output", "the standard error stream"];
        let streams = streams.into_iter().zip(self.streams.iter().zip(&now.streams));
        if let Some((stream, _)) = streams.into_iter().find(|(_, (before, now))| before != now) {
            return Some(stream.into());
        }
        let (before, now) = self.alone.as_ref().zip(now.alone.as_ref())?;
        if now.threads > before.threads {
            return Some(format!("the number of threads, by {},", now.threads - before.threads));
        }
        (now.children != before.children).then(|| "the number of child processes".into())
    }
}

fn tasks() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path())
}

/// Child processes, dead ones too that nobody has waited for.
fn children() -> usize {
    tasks()
        .filter_map(|task| std::fs::read_to_string(task.join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_said() {
        let before = Surroundings::now().shared();
        assert_eq!(before.changed(&before.clone()), None);
        let mut after = before.clone();
        after.environment.insert("FP8FLOW_TEST_NEW".into(), "1".into());
        assert!(before.changed(&after).is_some_and(|what| what.contains("FP8FLOW_TEST_NEW")));
        assert!(after.changed(&before).is_some_and(|what| what.contains("FP8FLOW_TEST_NEW")));
        let elsewhere = Surroundings { working_directory: Some("/nowhere".into()), ..before.clone() };
        assert_eq!(before.changed(&elsewhere).as_deref(), Some("the working directory"));
        let alone =
            |threads, children| Surroundings { alone: Some(Alone { threads, children }), ..before.clone() };
        assert!(alone(1, 0).changed(&alone(2, 0)).is_some_and(|what| what.contains("threads, by 1")));
        assert!(alone(1, 0).changed(&alone(1, 1)).is_some_and(|what| what.contains("child processes")));
    }
}
