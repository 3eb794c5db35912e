//! A run in words.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Seen, Standing};
use serde_json::{Value, json};

/// The colour of a standing, an ANSI sequence.
pub(crate) const fn colour(standing: Standing) -> &'static str {
    match standing {
        Standing::Running => "\x1b[1;96m",
        Standing::Finished => "\x1b[1;32m",
        Standing::Interrupted => "\x1b[1;33m",
        Standing::Killed | Standing::Failed => "\x1b[1;91m",
    }
}

/// The folder of `run`, good wherever another process stands.
pub(crate) fn place(run: &Seen) -> PathBuf {
    std::path::absolute(&run.folder).unwrap_or_else(|_| run.folder.clone())
}

/// A run as JSON, with one fact `more` on its status, the seconds it took and the command that goes on with it.
pub(crate) fn object(run: &Seen, (key, more): (&str, Value), seconds: f64, goes_on: Option<&str>) -> Value {
    json!({
        "id": run.record.id,
        "folder": place(run),
        "workflow": run.record.workflow,
        "file": run.record.file,
        "status": run.standing,
        key: more,
        "started": run.record.started,
        "updated": run.record.updated,
        "seconds": seconds,
        "attempts": run.record.attempts,
        "exit_code": run.record.exit_code,
        "error": run.record.error,
        "crash": run.crash,
        "goes_on_with": goes_on,
    })
}

/// `path` without the folder this process is in, where it lies below it.
pub(crate) fn near(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.as_deref().unwrap_or(path).display().to_string()
}
