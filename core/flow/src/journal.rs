//! Where events go: to the observer, and to `events.jsonl`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Event, Observer};

/// Progress is for those who watch: the file keeps one such line a second, and the first and the last of a
/// stage.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// Passes events on, in order, from any thread.
pub(crate) struct Journal {
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// When a stage's progress was last written.
    progress: BTreeMap<String, Instant>,
    /// Whether a write failed: said once, for the file is a convenience and the work goes on.
    broken: bool,
}

impl Journal {
    /// Appends to the file `path`; a line that a crash cut off is ended first.
    pub(crate) fn open(path: &Path, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let open = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                let mut last = [0];
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            Ok(file)
        };
        let file = open().map_err(Error::io("write", path))?;
        Ok(Self { observer, state: Mutex::new(State { file, progress: BTreeMap::new(), broken: false }) })
    }

    pub(crate) fn emit(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.observer.on(event);
        if let Event::StageStarted { stage, .. } = event {
            state.progress.remove(stage);
        }
        if let Event::Progress { stage, done, total, .. } = event {
            let due = state.progress.get(stage).is_none_or(|last| last.elapsed() >= BETWEEN_PROGRESS);
            if !due && Some(*done) != *total {
                return;
            }
            state.progress.insert(stage.clone(), Instant::now());
        }
        if let Err(error) = state.write(event)
            && !state.broken
        {
            state.broken = true;
            let message = format!("events.jsonl is not written any more: {error}");
            self.observer.on(&Event::Warning { stage: String::new(), message });
        }
    }
}

impl State {
    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        if self.broken {
            return Ok(());
        }
        let line = event.line() + "\n";
        self.file.write_all(line.as_bytes())
    }
}
