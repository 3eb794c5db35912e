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

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use fp8flow_kernels::Isa;
use fp8flow_sdk::{Host, HostServices, Level};

use crate::crash::SIGNALS;
use crate::found::{Candidate, Settings};
use crate::{HostError, Origin, Place, library};

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
/// In a child, [`MARK`] and the word it was told.
static SIGNED: OnceLock<String> = OnceLock::new();

/// In the child, does what this crate tries in children and exits; otherwise notes that this executable can be that child.
pub fn run_if_child() {
    answer(VARIABLE, |path| try_plugin(Path::new(&path)));
    crate::machine::cuda::run_if_child();
    ANSWERS.store(true, Ordering::Relaxed);
}

/// In a child that was asked by `variable`, does `task` with its value and exits; otherwise does nothing.
pub fn answer(variable: &str, task: impl FnOnce(OsString)) {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return };
    no_core_dump();
    crate::crash::listen();
    let mut word = String::new();
    // Without a word nobody listens.
    let _ = std::io::stdin().read_line(&mut word);
    let _ = SIGNED.set(format!("{MARK}{} ", word.trim()));
    task(value);
    say(SURVIVED);
    std::process::exit(0);
}

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

/// The end of what a process wrote, as the end of a message.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let printable = |line: &&str| line.replace(char::is_control, " ");
    let last: Vec<_> = lines[lines.len().saturating_sub(4)..].iter().map(printable).collect();
    if last.is_empty() { String::new() } else { format!("; it wrote: {}", last.join(" / ")) }
}

fn signal_name(signal: i32) -> String {
    let mut known = SIGNALS.into_iter().chain([(libc::SIGKILL, "SIGKILL")]);
    known.find(|(known, _)| *known == signal).map_or(format!("signal {signal}"), |(_, name)| name.to_owned())
}

/// Opens and starts the plugin.
fn try_plugin(path: &Path) {
    if let Err(error) = open_and_start(path) {
        say(&format!("{OBJECTION}{}", error.to_string().replace(char::is_control, " ")));
    }
}

fn open_and_start(path: &Path) -> Result<(), HostError> {
    let place = Place { origin: Origin::Path, path: path.to_owned() };
    say("open");
    let found = Candidate::look(path)
        .and_then(|candidate| candidate.digest(&place, &Arc::new(Settings::default())))
        .map_err(|refusal| refusal.of(path.to_owned()))?;
    let opened = library::open(&found)?;
    say("start");
    // Dropped at once: that has to work too.
    opened.library.start(&Host::new(Arc::new(Alone)))?;
    Ok(())
}

/// In a child, says a line to whoever asked; the last one tells where it was if it does not survive.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // If nobody can hear it, the line that it survived is missed too.
    let signed = SIGNED.get().map_or(MARK, String::as_str);
    let _ = writeln!(stdout, "\n{signed}{line}").and_then(|()| stdout.flush());
}

/// A crash here is expected, and its memory of no interest.
#[allow(unsafe_code)]
fn no_core_dump() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete and lives through the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// One thread and no log.
struct Alone;

impl HostServices for Alone {
    fn isa(&self) -> Isa {
        Isa::best()
    }

    fn threads(&self) -> usize {
        1
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(body);
    }

    fn log_enabled(&self, level: Level, _target: &str) -> bool {
        level == Level::Error
    }

    fn log(&self, _level: Level, target: &str, message: &str) {
        eprintln!("{target}: {message}");
    }

    fn reduce_amax(&self, _values: &mut [f32]) {}

    fn cancelled(&self) -> bool {
        false
    }
}
