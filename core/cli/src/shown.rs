//! What a run leaves beside its results to be looked at: its page, and the files that other programs watch.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fp8flow_flow::Seen;
use fp8flow_report::{Export, ReportError};

use crate::args::ExportKind;
use crate::screen::Screen;

/// Between two looks at what is exported.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// A thread that writes what other programs watch, from the files of a run and apart from its work.
pub(crate) struct Exports {
    /// Dropped when the run has ended.
    working: Sender<()>,
    thread: JoinHandle<Result<(), ReportError>>,
}

impl Exports {
    /// Begins with the run in `folder`, if there is anything to write.
    pub(crate) fn begin(folder: &Path, kinds: &[ExportKind]) -> Option<Self> {
        let kinds: Vec<Export> = ExportKind::all(kinds);
        if kinds.is_empty() {
            return None;
        }
        let (working, ended) = channel();
        let folder = folder.to_owned();
        let thread = std::thread::spawn(move || {
            let wait = || ended.recv_timeout(BETWEEN_LOOKS) == Err(RecvTimeoutError::Timeout);
            fp8flow_report::follow(&Seen::look(&folder)?, &kinds, None, None, wait).map(drop)
        });
        Some(Self { working, thread })
    }

    /// Waits until all is written.
    fn end(self) -> Result<(), ReportError> {
        drop(self.working);
        self.thread.join().unwrap_or(Ok(()))
    }
}

/// The run in `folder` has ended, well or not: writes its page, and says where it is. What cannot be written is said on
/// `screen`, and is no reason for a run to fail.
pub(crate) fn end(folder: &Path, exports: Option<Exports>, screen: &Screen) -> Option<PathBuf> {
    let warn = |what: &str, error: &ReportError| {
        screen.complain(format!("\x1b[1;33mwarning\x1b[0m: no {what}: {error}"));
    };
    if let Err(error) = exports.map_or(Ok(()), Exports::end) {
        warn("files for other programs", &error);
    }
    let report = Seen::look(folder).map_err(ReportError::from);
    let report = report.and_then(|run| fp8flow_report::write(&run, None));
    report.inspect_err(|error| warn("report", error)).ok()
}
