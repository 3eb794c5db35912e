//! The two streams of the program, and the bars that must not be written over.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Where words go. Clones share the bars.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    json: bool,
    /// What was asked for did not reach stdout, though somebody wants it.
    lost: Arc<OnceLock<String>>,
    /// Nobody reads stdout any more.
    closed: Arc<AtomicBool>,
}

impl Screen {
    /// With bars where stderr is a terminal and nobody asked for JSON.
    pub(crate) fn new(json: bool) -> Self {
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            json,
            lost: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// Whether stdout is for programs.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether bars can be seen.
    pub(crate) fn has_bars(&self) -> bool {
        io::stderr().is_terminal() && !self.bars.is_hidden()
    }

    /// The bars.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes a line, or several, to stdout. Whoever closed it does not want them; any other error is kept.
    pub(crate) fn print(&self, text: impl AsRef<str>) {
        let written = self.bars.suspend(|| {
            let mut out = anstream::stdout().lock();
            writeln!(out, "{}", text.as_ref().trim_end_matches('\n')).and_then(|()| out.flush())
        });
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                let _ = self.lost.set(error.to_string());
            }
        }
    }

    /// Waits so long; less where a signal comes. Says whether somebody may still read stdout.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let out = io::stdout();
        // No event is asked for: an end of the other side is always told.
        let mut asked = [PollFd::new(&out, PollFlags::empty())];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let told = poll(&mut asked, Some(&time)).unwrap_or_default() > 0;
        let gone = told && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        if told && !gone {
            std::thread::sleep(Duration::from_millis(50));
        }
        !gone && !self.is_closed()
    }

    /// Whether nobody reads stdout any more, as far as printing has shown.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Why not all that was printed arrived, if so.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Writes a line, or several, to stderr.
    pub(crate) fn complain(&self, text: impl AsRef<str>) {
        self.bars.suspend(|| {
            let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref().trim_end_matches('\n'));
        });
    }

    /// Writes bytes that are already text with its newlines to stderr.
    pub(crate) fn write_raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.bars.suspend(|| anstream::stderr().lock().write_all(bytes))
    }
}
