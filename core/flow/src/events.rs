//! `events.jsonl` read back, also while it is written.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Event};

/// The name of the file in a run's folder.
pub(crate) const FILE: &str = "events.jsonl";

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The moment, as [`crate::time`] writes it.
    pub time: String,
    /// What.
    pub event: Event,
}

/// The events of a run, from the first to the last that is written; asked again later, those that came after.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of a line that is being written.
    begun: Vec<u8>,
    /// Lines read.
    count: u64,
}

impl Events {
    /// Those of the run in `folder`; there may be none yet.
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE), file: None, begun: Vec::new(), count: 0 }
    }

    /// The next line as it is written; `None` if it is not there yet.
    pub fn line(&mut self) -> Result<Option<String>, Error> {
        let reader = match &mut self.file {
            Some(reader) => reader,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(BufReader::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            },
        };
        reader.read_until(b'\n', &mut self.begun).map_err(Error::io("read", &self.path))?;
        if !self.begun.ends_with(b"\n") {
            return Ok(None);
        }
        self.count += 1;
        let mut line = std::mem::take(&mut self.begun);
        line.pop();
        String::from_utf8(line).map(Some).map_err(|_| self.damaged())
    }

    /// What `line`, the last that was read, says: nothing where a crash cut it off, or where it is of a kind that this
    /// version does not know.
    pub fn entry(&self, line: &str) -> Result<Option<Entry>, Error> {
        let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else {
            let torn = line.starts_with('{') || line.is_empty();
            return if torn { Ok(None) } else { Err(self.damaged()) };
        };
        let (Some(Value::String(time)), true) =
            (fields.remove("time"), fields.get("event").is_some_and(Value::is_string))
        else {
            return Err(self.damaged());
        };
        Ok(serde_json::from_value(fields.into()).ok().map(|event| Entry { time, event }))
    }

    fn damaged(&self) -> Error {
        Error::Damaged { path: self.path.clone(), what: format!("line {} is no event", self.count) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_are_read_as_they_come_and_torn_and_unknown_ones_say_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::of(folder.path());
        assert_eq!(events.line().expect("read"), None);
        let path = folder.path().join(FILE);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("made");
        let said = Event::Said { stage: "s".into(), line: "hello".into() };
        let text = said.line();
        let (head, tail) = text.split_at(20);
        file.write_all(head.as_bytes()).expect("written");
        assert_eq!(events.line().expect("read"), None);
        writeln!(file, "{tail}\n{{\"time\":\"x\",\"event\":\"dreamt\"}}\n{{\"ti\nnonsense").expect("written");
        let line = events.line().expect("read").expect("whole");
        assert_eq!(events.entry(&line).expect("an event").map(|entry| entry.event), Some(said));
        for _ in ["unknown", "torn"] {
            let line = events.line().expect("read").expect("whole");
            assert_eq!(events.entry(&line).expect("no damage"), None);
        }
        let line = events.line().expect("read").expect("whole");
        let error = events.entry(&line).expect_err("damage").to_string();
        assert!(error.contains("events.jsonl is damaged: line 4"), "{error}");
    }
}
