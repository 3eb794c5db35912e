//! A program of the user's as a child process that leaves nothing behind: it and what it starts are a group of processes of
//! their own, which ends with it, with [`Running`], or with this process, however that ends.
//!
//! Two things see to the last. The system kills the program when the thread that started it is gone; and a keeper, a
//! shell that waits for the end of a pipe, kills the rest of the group. A terminal's Ctrl-C reaches this process alone, which
//! then decides.
//!
//! ```no_run
//! use std::time::Duration;
//! use fp8flow_host::program::{Program, Running, Stream};
//!
//! let program = Program::new("/usr/bin/env", "env", "/tmp").set("LANG", "C");
//! let mut running: Running = program.start()?;
//! let status = loop {
//!     let hear = &mut |stream: Stream, bytes: &[u8]| println!("{stream:?}: {} bytes", bytes.len());
//!     if let Some(status) = running.wait(Duration::from_millis(100), hear)? { break status }
//! };
//! println!("{status}");
//! # Ok::<(), std::io::Error>(())
//! ```

mod keeper;
mod start;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};

use keeper::Keeper;

/// The file descriptor on which a program may write, beside its output and its errors.
pub const METRICS_FD: i32 = 3;

/// Between two looks at a program that is silent.
const LOOK: Duration = Duration::from_millis(50);

/// What is read of a stream after its program has ended: what a pipe holds, and more of nobody.
const REST: usize = 1 << 20;

/// How long killed processes of the group are waited for.
const KILLED: Duration = Duration::from_millis(500);

/// How a program is started: nothing of this process's environment reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    name: OsString,
    folder: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// Where a program has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
    /// [`METRICS_FD`].
    Metrics,
}

/// A program at work. It stays with the thread that has started it: its end is the program's.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Pid,
    keeper: Option<Keeper>,
    streams: Vec<(Stream, File)>,
    ended: Option<ExitStatus>,
    of_this_thread: PhantomData<*const ()>,
}

impl Program {
    /// The file `path`, which is told that its name is `name`, to work in `folder`.
    pub fn new(path: impl Into<PathBuf>, name: impl Into<OsString>, folder: impl Into<PathBuf>) -> Self {
        let (path, name, folder) = (path.into(), name.into(), folder.into());
        Self { path, name, folder, arguments: Vec::new(), environment: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn set(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it, with nothing on its standard input.
    pub fn start(&self) -> io::Result<Running> {
        let start::Started { child, streams } = start::start(self)?;
        let group = Pid::from_child(&child);
        let keeper = Keeper::of(group);
        let of_this_thread = PhantomData;
        Ok(Running { child, group, keeper, streams, ended: None, of_this_thread })
    }

    /// The file that is started as `name`: a path from `folder`, or the first of that name in `search`, a list of folders
    /// as in `PATH`. The error says what is there instead.
    pub fn find(name: &str, folder: &Path, search: Option<&OsStr>) -> Result<PathBuf, NotFound> {
        if name.contains('/') {
            let path = folder.join(name);
            return match path.metadata() {
                Err(_) => Err(NotFound::Nothing(path)),
                Ok(there) if there.is_dir() => Err(NotFound::Folder(path)),
                Ok(_) if !is_executable(&path) => Err(NotFound::NotExecutable(path)),
                Ok(_) => Ok(path),
            };
        }
        let places = search.map(std::env::split_paths).into_iter().flatten();
        let mut paths = places.map(|place| folder.join(place).join(name)).filter(|path| path.is_file());
        let first = paths.next();
        match first.iter().cloned().chain(paths).find(|path| is_executable(path)) {
            Some(path) => Ok(path),
            None => Err(first.map_or(NotFound::NotOnPath, NotFound::NotExecutable)),
        }
    }
}

/// Why there is no program of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// Nothing is at this path.
    Nothing(PathBuf),
    /// A folder is at this path.
    Folder(PathBuf),
    /// A file is at this path that this user may not execute.
    NotExecutable(PathBuf),
    /// No folder of the search has it.
    NotOnPath,
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

impl Running {
    /// Waits for `at_most`, hands what the program writes meanwhile to `hear`, and returns how it ended if it did.
    pub fn wait(
        &mut self,
        at_most: Duration,
        hear: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + at_most;
        loop {
            if self.ended.is_some() {
                return Ok(self.ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            // Where its streams are closed, nothing else tells of its end.
            let look = if self.streams.is_empty() { LOOK / 10 } else { LOOK };
            self.listen(left.min(look), hear)?;
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.group), look) {
                Ok(Some(_)) => {
                    let status = self.end()?;
                    self.rest(hear)?;
                    return Ok(Some(status));
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Asks the whole group to end.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the whole group.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // Until it is waited for, the number is that of no other group.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Reads what is there, after waiting for it up to `wait`.
    fn listen(&mut self, wait: Duration, hear: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        let timeout = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
        let mut waited: Vec<PollFd<'_>> =
            self.streams.iter().map(|(_, file)| PollFd::new(file, PollFlags::IN)).collect();
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let mut failed = Ok(());
        self.streams.retain_mut(|(stream, file)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match read_some(file) {
                Ok(Some(bytes)) if bytes.is_empty() => false,
                Ok(Some(bytes)) => {
                    hear(*stream, &bytes);
                    true
                }
                Ok(None) => true,
                Err(error) => {
                    failed = Err(error);
                    false
                }
            }
        });
        failed
    }

    /// What is left in the pipes of a program that has ended. Who has left the group may hold them open for ever.
    fn rest(&mut self, hear: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        for (stream, mut file) in self.streams.drain(..) {
            let mut read = 0;
            while read < REST
                && let Some(bytes) = read_some(&mut file)?
                && !bytes.is_empty()
            {
                read += bytes.len();
                hear(stream, &bytes);
            }
        }
        Ok(())
    }

    /// Ends what the program has left in its group, then the keeper, and gives the program's number back.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.keeper = None;
        let status = self.child.wait()?;
        self.ended = Some(status);
        let until = Instant::now() + KILLED;
        while test_kill_process_group(self.group).is_ok() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(status)
    }
}

/// What can be read at once; nothing at the end, `None` where one would wait.
fn read_some(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 64 * 1024];
    match file.read(&mut buffer) {
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(buffer))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.end();
        }
    }
}
