//! What the program has to leave: declared before, looked at after.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use fp8flow_flow::{PlanCx, StageCx, StageError};
use serde_json::Value;

use super::{LOG, METRICS};
use crate::model::gb;

/// Names at the top of the stage's folder that are not the program's.
const TAKEN: [&str; 3] = [LOG, METRICS, "stage.json"];

/// Objects to places outside the stage's folder, and to those that are not the program's.
pub(super) fn check(cx: &mut PlanCx<'_>) {
    for (name, path) in declared(cx.params().get("outputs")) {
        let key = format!("outputs.{name}");
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(named) {
            cx.error(&key, format!("`{name}` cannot be the name of an output"))
                .label("expected letters, digits, `_` and `-` in its name");
        }
        if let Some((message, help)) = objection(Path::new(path)) {
            cx.error(&key, message).help(help);
        }
    }
}

/// Why an output cannot be at `path`.
fn objection(path: &Path) -> Option<(String, &'static str)> {
    let shown = path.display();
    let mut parts = path.components().peekable();
    match parts.peek() {
        None => {
            return Some(("the path of an output is empty".into(), "Write the name of a file or folder."));
        }
        Some(Component::Normal(first)) if TAKEN.iter().any(|taken| first == taken) => {
            return Some((format!("{shown} is written by fp8flow itself"), "Choose another name."));
        }
        Some(_) => {}
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Some(("a path cannot hold a zero byte".into(), "Choose another name."));
    }
    for part in parts {
        let Component::Normal(part) = part else {
            let help = "Write a path within it; the program finds it with {out.NAME}.";
            return Some((format!("{shown} is not within the stage's folder"), help));
        };
        if part.as_encoded_bytes().starts_with(b".") {
            let help = "Names that begin with a dot are no part of a result; choose another.";
            return Some((format!("{shown} is hidden"), help));
        }
    }
    None
}

/// Names with paths.
fn declared(outputs: &Value) -> impl Iterator<Item = (&str, &str)> {
    let pairs = outputs.as_object().into_iter().flatten();
    pairs.map(|(name, path)| (name.as_str(), path.as_str().unwrap_or_default()))
}

/// What the program has left.
pub(super) struct Outputs {
    /// By name.
    pub(super) paths: Vec<(String, PathBuf)>,
    files: u64,
    bytes: u64,
}

/// Looks at every declared output, and at the rest for what no result can hold.
pub(super) fn collect(cx: &StageCx<'_>) -> Result<Outputs, StageError> {
    let mut outputs = Outputs { paths: Vec::new(), files: 0, bytes: 0 };
    for (name, within) in declared(cx.params().get("outputs")) {
        let mut path = cx.folder().to_owned();
        for part in Path::new(within).components() {
            path.push(part);
            let there = fs::symlink_metadata(&path).map_err(|_| absent(cx, name, within))?;
            if there.is_symlink() {
                return Err(link(&path));
            }
        }
        outputs.look(cx, &path)?;
        outputs.paths.push((name.to_owned(), path));
    }
    no_devices(cx.folder())?;
    Ok(outputs)
}

fn absent(cx: &StageCx<'_>, name: &str, within: &str) -> StageError {
    let left = fs::read_dir(cx.folder()).into_iter().flatten().flatten();
    let left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut left: Vec<String> =
        left.filter(|name| !name.starts_with('.') && !TAKEN.contains(&name.as_str())).collect();
    left.sort();
    let left = if left.is_empty() { "nothing".into() } else { left.join(", ") };
    let message =
        format!("the program ended well, but its output `{name}` is not there ({within}); it left {left}");
    StageError::failed(message).help(format!("It must write to the path that {{out.{name}}} stands for."))
}

fn link(path: &Path) -> StageError {
    StageError::failed(format!("{} is a link, which is no part of a result", path.display()))
        .help("Let the program write the file itself, or a copy.")
}

impl Outputs {
    fn look(&mut self, cx: &StageCx<'_>, path: &Path) -> Result<(), StageError> {
        cx.stop_if_cancelled()?;
        let failed = |error| StageError::io(path, error);
        let there = fs::symlink_metadata(path).map_err(failed)?;
        if there.is_symlink() {
            return Err(link(path));
        }
        if there.is_dir() {
            for entry in fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    cx.warn(format!("{} is hidden and no part of the result", entry.path().display()));
                } else {
                    self.look(cx, &entry.path())?;
                }
            }
            return Ok(());
        }
        if there.is_file() {
            own(path, &there)?;
            self.files += 1;
            self.bytes += there.len();
        }
        Ok(())
    }

    /// One line for people.
    pub(super) fn summary(&self, attempts: u64) -> String {
        let files = match self.files {
            0 => "no files".into(),
            1 => format!("1 file, {}", size(self.bytes)),
            n => format!("{n} files, {}", size(self.bytes)),
        };
        if attempts > 1 { format!("{files}, at attempt {attempts}") } else { files }
    }
}

/// Bytes as people say them, also few.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => gb(bytes),
    }
}

/// Makes a file that has other names a file of its own: a result is made read-only, and the other may be the user's.
fn own(path: &Path, there: &Metadata) -> Result<(), StageError> {
    if there.nlink() == 1 {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.aside"));
    let copied = fs::copy(path, &aside).and_then(|_| fs::rename(&aside, path));
    copied.map_err(|error| StageError::io(path, error))
}

/// Objects to pipes, sockets and devices: to read them is to wait for ever.
fn no_devices(folder: &Path) -> Result<(), StageError> {
    let failed = |error| StageError::io(folder, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            no_devices(&entry.path())?;
        } else if !kind.is_file() && !kind.is_symlink() {
            let message = format!("{} is neither a file nor a folder", entry.path().display());
            return Err(StageError::failed(message).help("Let the program remove it before it ends."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_their_unit() {
        let said = [0, 999, 1240, 20_000_000].map(size);
        assert_eq!(said, ["0 B", "999 B", "1.2 kB", "20.0 MB"]);
    }

    #[test]
    fn an_output_is_within_the_folder_and_not_hidden() {
        for path in ["report.json", "model/config.json", "a/b/c", "..x"] {
            let hidden = path.starts_with('.');
            assert_eq!(objection(Path::new(path)).is_some(), hidden, "{path}");
        }
        for path in [
            "",
            ".",
            "..",
            "../x",
            "a/../x",
            "/etc/x",
            ".hidden",
            "a/.git",
            "log.txt",
            "metrics.jsonl",
            "stage.json",
        ] {
            assert!(objection(Path::new(path)).is_some(), "{path}");
        }
    }
}
