//! The two streams of the program, and the bars that must not be written over.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, OnceLock};

use indicatif::{MultiProgress, ProgressDrawTarget};

/// Where words go. Clones share the bars.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    json: bool,
    /// What was asked for did not reach stdout, though somebody wants it.
    lost: Arc<OnceLock<String>>,
}

impl Screen {
    /// With bars where stderr is a terminal and nobody asked for JSON.
    pub(crate) fn new(json: bool) -> Self {
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { bars: MultiProgress::with_draw_target(target), json, lost: Arc::default() }
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
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = self.lost.set(error.to_string());
        }
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
