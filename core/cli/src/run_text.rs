//! A run in words.

use std::fmt::Write as _;
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

/// `2026-11-25 22:17` of a moment.
pub(crate) fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// The command that goes on with `run`: its workflow's file, with what was laid over it.
pub(crate) fn go_on(run: &Seen) -> String {
    let mut command = format!("fp8flow run {}", quoted(&run.record.file));
    let words = run.record.environment["argv"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<&str> = words.collect();
    for (index, word) in words.iter().enumerate() {
        for option in ["--set", "--runs"] {
            let value = match word.strip_prefix(option) {
                Some("") => words.get(index + 1).copied(),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            if let Some(value) = value {
                let _ = write!(command, " {option} {}", quoted(value));
            }
        }
    }
    command
}

/// `word` as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
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
        "goes_on_with": goes_on,
    })
}

/// `path` without the folder this process is in, where it lies below it.
pub(crate) fn near(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.as_deref().unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        assert_eq!(quoted("stages.train.steps=3"), "stages.train.steps=3");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_moment_is_shown_to_the_minute() {
        assert_eq!(minute("2026-11-25T22:17:01.250Z"), "2026-11-25 22:17");
    }
}
