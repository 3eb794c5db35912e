//! The moment between fork and exec: the program's third stream gets its number, and the program is tied to this process.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, getpid};

use super::{METRICS_FD, Program, Stream};

/// A program that was started, and the ends of its streams that one reads.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) streams: Vec<(Stream, File)>,
}

pub(super) fn start(program: &Program) -> io::Result<Started> {
    // As long as the number is taken here, no pipe that the library makes for itself has it in the child.
    let _taken = take(METRICS_FD)?;
    let (output, output_end) = io::pipe()?;
    let (errors, errors_end) = io::pipe()?;
    let (metrics, metrics_end) = io::pipe()?;
    let (parent, end) = (getpid(), metrics_end.as_raw_fd());
    let mut command = Command::new(&program.path);
    command
        .arg0(&program.name)
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output_end)
        .stderr(errors_end);
    // SAFETY: between fork and exec only calls that are safe after a signal may be made: `prepare` makes system calls
    // through thin wrappers, allocates nothing and takes no lock. `metrics_end` is open until after the start.
    unsafe {
        command.pre_exec(move || prepare(parent, end));
    }
    let child = command.spawn()?;
    drop(metrics_end);
    let streams = [(Stream::Output, output), (Stream::Errors, errors), (Stream::Metrics, metrics)];
    let streams = streams.into_iter().map(|(stream, pipe)| Ok((stream, impatient(pipe)?)));
    Ok(Started { child, streams: streams.collect::<io::Result<_>>()? })
}

/// In the child.
fn prepare(parent: Pid, end: RawFd) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have gone before that.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    // SAFETY: both are numbers; the second is open in this process or the call fails. The copy outlives exec.
    if unsafe { libc::dup2(end, METRICS_FD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Files that take every free number up to `number`.
fn take(number: RawFd) -> io::Result<Vec<File>> {
    let mut taken: Vec<File> = Vec::new();
    while taken.last().is_none_or(|file| file.as_raw_fd() < number) {
        taken.push(File::open("/dev/null")?);
    }
    Ok(taken)
}

/// The end of a pipe that never lets one wait.
fn impatient(pipe: PipeReader) -> io::Result<File> {
    let fd = OwnedFd::from(pipe);
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(File::from(fd))
}
