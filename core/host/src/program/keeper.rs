//! Kills a group of processes when this process is gone.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::Pid;

/// A shell at the other end of a pipe that only this process holds open. It is in a group of its own, so that what ends
/// this process from a terminal leaves it.
#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
    _pipe: ChildStdin,
}

impl Keeper {
    /// One for `group`; none where there is no shell, so that the program alone ends with this process.
    pub(super) fn of(group: Pid) -> Option<Self> {
        let script = format!("read -r _; kill -s KILL -- -{}", group.as_raw_nonzero());
        let mut shell = Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let pipe = shell.stdin.take()?;
        Some(Self { shell, _pipe: pipe })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Before the pipe ends: by then the number may be another group's.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
