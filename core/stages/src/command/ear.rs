//! Hears what a program writes: a log, lines for people, measured values. However much that is, little of it is kept in
//! memory, and the log and the events stay of a size that a disk can hold.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fp8flow_flow::{Reporter, StageError};
use fp8flow_host::program::Stream;
use serde_json::Value;

use super::lines::{Line, Lines, plain};
use super::{LOG, METRICS};

/// The longest line of output; the rest of a longer one is dropped.
const LONGEST: usize = 16 << 10;

/// The longest line of metrics; a longer one is none.
const LONGEST_METRICS: usize = 64 << 10;

/// Characters of a line that are shown.
const SHOWN: usize = 500;

/// What the log holds at most.
const LOG_LIMIT: u64 = 64 << 20;

/// Lines that are shown at once, and in a second from then on.
const BURST: f64 = 200.0;
const PER_SECOND: f64 = 20.0;

/// The last lines of errors that are kept for a message.
const LAST: usize = 12;

/// Malformed lines of metrics that are told one by one.
const WARNINGS: u64 = 5;

/// Listens to one attempt.
pub(super) struct Ear {
    reporter: Reporter,
    /// Those of each stream.
    lines: [Lines; 3],
    log: Writer,
    measured: Writer,
    /// The last lines on standard error.
    pub(super) last: VecDeque<String>,
    /// Lines that may be shown now, and since when that is so.
    allowance: (f64, Instant),
    unshown: u64,
    malformed: u64,
    failed: Option<StageError>,
}

/// A file that appears when there is something to write.
struct Writer {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    written: u64,
    limit: u64,
}

impl Ear {
    pub(super) fn new(folder: &Path, reporter: Reporter) -> Self {
        Self {
            reporter,
            lines: [Lines::new(LONGEST, true), Lines::new(LONGEST, true), Lines::new(LONGEST_METRICS, false)],
            log: Writer::new(folder.join(LOG), LOG_LIMIT),
            measured: Writer::new(folder.join(METRICS), u64::MAX),
            last: VecDeque::new(),
            allowance: (BURST, Instant::now()),
            unshown: 0,
            malformed: 0,
            failed: None,
        }
    }

    /// A line for the log alone.
    pub(super) fn note(&mut self, line: &str) {
        let result = self.log.line(line.as_bytes());
        self.keep(result);
    }

    /// Takes what was written.
    pub(super) fn hear(&mut self, stream: Stream, bytes: &[u8]) {
        self.with(stream, |lines, tell| lines.take(bytes, tell));
    }

    /// Nothing more will be written; fails where a file could not be.
    pub(super) fn finish(&mut self) -> Result<(), StageError> {
        for stream in [Stream::Output, Stream::Errors, Stream::Metrics] {
            self.with(stream, |lines, tell| lines.finish(tell));
        }
        self.tell_unshown();
        if self.malformed > WARNINGS {
            self.reporter.warn(format!("{} lines of metrics in all are no JSON objects", self.malformed));
        }
        self.flush()
    }

    /// Gives what was heard to the files, so that others can read it.
    pub(super) fn flush(&mut self) -> Result<(), StageError> {
        let flushed = self.log.flush().and_then(|()| self.measured.flush());
        self.keep(flushed);
        self.failed.take().map_or(Ok(()), Err)
    }

    fn with(&mut self, stream: Stream, feed: impl FnOnce(&mut Lines, &mut dyn FnMut(Line<'_>))) {
        let mut lines = std::mem::replace(&mut self.lines[stream as usize], Lines::new(0, false));
        feed(&mut lines, &mut |line| match stream {
            Stream::Metrics => self.measure(line),
            Stream::Output | Stream::Errors => self.line(stream, line),
        });
        self.lines[stream as usize] = lines;
    }

    fn line(&mut self, stream: Stream, line: Line<'_>) {
        let logged = self.log.line(line.bytes);
        self.keep(logged);
        let shown = plain(line.bytes, SHOWN);
        if shown.is_empty() {
            return;
        }
        if stream == Stream::Errors {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(shown.clone());
        }
        let now = Instant::now();
        let (left, since) = self.allowance;
        let left = (left + PER_SECOND * (now - since).as_secs_f64()).min(BURST);
        self.allowance = (left, now);
        if left < 1.0 {
            self.unshown += 1;
            return;
        }
        self.allowance.0 -= 1.0;
        self.tell_unshown();
        self.reporter.say(shown);
    }

    fn tell_unshown(&mut self) {
        match std::mem::take(&mut self.unshown) {
            0 => {}
            1 => self.reporter.say(format!("(1 line more is in {LOG})")),
            more => self.reporter.say(format!("({more} lines more are in {LOG})")),
        }
    }

    fn measure(&mut self, line: Line<'_>) {
        if line.bytes.trim_ascii().is_empty() {
            return;
        }
        let objection = if line.cut {
            format!("it is longer than {LONGEST_METRICS} bytes")
        } else {
            match serde_json::from_slice::<Value>(line.bytes) {
                Ok(values @ Value::Object(_)) => return self.values(values),
                Ok(_) => "it is no object".into(),
                Err(error) => error.to_string(),
            }
        };
        self.malformed += 1;
        if self.malformed <= WARNINGS {
            let begin = plain(line.bytes, 60);
            self.reporter
                .warn(format!("a line of metrics is no JSON object and is dropped: {objection}: {begin}"));
        }
    }

    fn values(&mut self, values: Value) {
        let kept = self.measured.line(values.to_string().as_bytes());
        self.keep(kept);
        if let Some(step) = values["step"].as_u64() {
            let message = values["message"].as_str().unwrap_or_default();
            self.reporter.progress(step, values["total"].as_u64(), "step", plain(message.as_bytes(), SHOWN));
        }
        self.reporter.metrics(values);
    }

    fn keep(&mut self, result: Result<(), StageError>) {
        if let (Err(error), None) = (result, &self.failed) {
            self.failed = Some(error);
        }
    }
}

impl Writer {
    fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, file: None, written: 0, limit }
    }

    /// Writes a line, as long as there is room; then says once that there is no more.
    fn line(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        if self.written > self.limit {
            return Ok(());
        }
        self.written += bytes.len() as u64 + 1;
        let bytes = if self.written > self.limit { b"(what comes after this is dropped)" } else { bytes };
        let path = &self.path;
        let failed = |error| StageError::io(path, error);
        if self.file.is_none() {
            let file = File::options().create(true).append(true).open(path).map_err(failed)?;
            self.file = Some(BufWriter::new(file));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).and_then(|()| file.write_all(b"\n")).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), StageError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush().map_err(|error| StageError::io(&self.path, error))
    }
}
