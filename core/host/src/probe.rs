//! What might crash, hang or exit is tried in a child process first, so that it costs a message: a plugin that was never
//! seen, a driver.
//!
//! The child is this executable again, with an environment variable that says what to try. An executable that wants that
//! calls [`run_if_child`] before anything else:
//!
//! ```no_run
//! // First thing in `main`:
//! fp8flow_host::probe::run_if_child();
//! ```
//!
//! For a plugin the child opens the library, asks for its recipes, starts the backend and says on its standard output how
//! far it came. All that counts is whether the child survives: failures that are reported as such will be reported just so
//! to this process. Where this process is not going to load it, what the child objects to is asked for, too. Another task
//! has a variable of its own, and [`answer`]s.
//!
//! What the child says is marked with a word that it is told on its standard input, before it opens anything: a plugin that
//! prints such lines itself is not believed.

mod child;
mod failure;

use std::ffi::OsStr;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use child::{answer, run_if_child, say};
pub use failure::ProbeFailure;
use failure::{last_lines, signal_name};

/// The library that the child should open.
pub const VARIABLE: &str = "FP8FLOW_PROBE";

/// What the lines of the child start with, before its word; a plugin may write others.
const MARK: &str = "@fp8flow-probe ";
/// The last of them.
const SURVIVED: &str = "survived";
/// What a line with an objection to the plugin starts with.
const OBJECTION: &str = "objection: ";

/// Output that is kept.
const OUTPUT_LIMIT: usize = 64 * 1024;

static ANSWERS: AtomicBool = AtomicBool::new(false);

/// How a child process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, &'static str)>,
    timeout: Duration,
}

/// What is heard of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line that it [`say`]s.
    Said(String),
    /// A line that something else in its process has printed.
    Printed(String),
}

impl Probe {
    /// Runs `program` with `arguments`; it must call [`run_if_child`].
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (variables, timeout) = (Vec::new(), Duration::from_secs(30));
        Self { program: program.into(), arguments, variables, timeout }
    }

    /// Gives up after `timeout` instead of 30 seconds.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets an environment variable of the child's, unless this process has it.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: &'static str) -> Self {
        if std::env::var_os(name).is_none() {
            self.variables.push((name, value));
        }
        self
    }

    /// This executable, if it has called [`run_if_child`]: others would do something else.
    pub fn this_executable() -> Option<Self> {
        // Also right where the file was replaced since.
        ANSWERS.load(Ordering::Relaxed).then(|| Self::new("/proc/self/exe", &[]))
    }

    /// Fails if a child process that opens and starts the plugin at `path` does not survive that; else says what it objects
    /// to.
    pub(crate) fn run(&self, path: &Path) -> Result<Option<String>, ProbeFailure> {
        let lines = self.ask(VARIABLE, path)?;
        Ok(lines.iter().find_map(|line| line.strip_prefix(OBJECTION)).map(str::to_owned))
    }

    /// What a child process that [`answer`]s to `variable` has to [`say`] about `value`; fails if it does not survive.
    pub fn ask(&self, variable: &str, value: impl AsRef<OsStr>) -> Result<Vec<String>, ProbeFailure> {
        let mut lines = Vec::new();
        self.follow(variable, value, &mut |heard| {
            if let Heard::Said(line) = heard {
                lines.push(line);
            }
        })?;
        Ok(lines)
    }

    /// [`Probe::ask`], each line heard as it is said; gives up after a silence as long as the timeout.
    pub fn follow(
        &self,
        variable: &str,
        value: impl AsRef<OsStr>,
        hear: &mut dyn FnMut(Heard),
    ) -> Result<(), ProbeFailure> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().copied())
            .env(variable, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ProbeFailure::Spawn)?;
        let word = format!("{:016x}{:016x}", random(), random());
        if let Some(mut stdin) = child.stdin.take() {
            // One that is gone already is missed below.
            let _ = writeln!(stdin, "{word}");
        }
        let said = child.stdout.take().map(|stdout| lines_of(stdout, format!("{MARK}{word} ")));
        let stderr = child.stderr.take().map(collect);
        let mut step = "the start of the process".to_owned();
        let mut survived = false;
        let mut listen = |heard: Heard| match heard {
            Heard::Said(line) if line == SURVIVED => survived = true,
            Heard::Said(line) => {
                step.clone_from(&line);
                survived = false;
                hear(Heard::Said(line));
            }
            printed @ Heard::Printed(_) => hear(printed),
        };
        let mut deadline = Instant::now() + self.timeout;
        let status = loop {
            match said.as_ref().map(|said| said.recv_timeout(PATIENCE)) {
                Some(Ok(heard)) => {
                    // Whoever prints without an end says nothing.
                    if matches!(heard, Heard::Said(_)) {
                        deadline = Instant::now() + self.timeout;
                    }
                    listen(heard);
                }
                Some(Err(RecvTimeoutError::Timeout)) => {}
                // It has closed its output, and will be gone in a moment.
                Some(Err(RecvTimeoutError::Disconnected)) | None => std::thread::sleep(PATIENCE),
            }
            match child.try_wait().map_err(ProbeFailure::Spawn)? {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => {}
            }
        };
        if status.is_none() {
            // It may have ended just now; there is nobody else to wait for it.
            let _ = child.kill();
            let _ = child.wait();
        }
        // A process that the plugin left behind may hold the pipes open.
        let last = Instant::now() + AFTERWARDS;
        while let Some(Ok(heard)) = said.as_ref().map(|said| said.recv_timeout(AFTERWARDS))
            && Instant::now() < last
        {
            listen(heard);
        }
        let stderr = stderr.and_then(|stderr| stderr.recv_timeout(AFTERWARDS).ok()).unwrap_or_default();
        match status {
            Some(status) if status.success() && survived => Ok(()),
            None => Err(ProbeFailure::TimedOut { step, timeout: self.timeout }),
            Some(status) => {
                let output = last_lines(&String::from_utf8_lossy(&stderr));
                Err(match status.signal() {
                    Some(signal) => ProbeFailure::Crashed { step, signal: signal_name(signal), output },
                    None => ProbeFailure::Exited { step, status, output },
                })
            }
        }
    }
}

/// How long the child is listened to before it is looked after.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long what it said last is waited for once it has ended.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A number that nobody can guess.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What is heard of the child, line by line; what it [`say`]s starts with `signed`.
fn lines_of(from: impl Read + Send + 'static, signed: String) -> mpsc::Receiver<Heard> {
    // A child that prints faster than it is heard waits.
    let (sender, receiver) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        // A plugin may write anything, and lines without an end.
        while matches!((&mut lines).take(OUTPUT_LIMIT as u64).read_until(b'\n', &mut line), Ok(1..)) {
            let said = String::from_utf8_lossy(&line);
            let heard = match said.trim_end().strip_prefix(&signed) {
                Some(said) => Heard::Said(said.to_owned()),
                None => Heard::Printed(said.trim_end().to_owned()),
            };
            let empty = heard == Heard::Printed(String::new());
            if !empty && sender.send(heard).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Reads everything, keeps the beginning, and sends it at the end.
fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let room = OUTPUT_LIMIT.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..read.min(room)]);
        }
        // Nobody waits any more where the time was up.
        let _ = sender.send(kept);
    });
    receiver
}
