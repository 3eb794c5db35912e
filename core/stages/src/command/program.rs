//! Which program `argv` starts, as far as that can be told before it does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Params, PlanCx, StageError};
use fp8flow_host::program::{NotFound, Program};
use serde_json::Value;

use super::environment;
use super::placeholders::{Piece, join, param, parse};

/// Objects where there is no such program, and warns of files that are given to it without being declared.
pub(super) fn check(cx: &mut PlanCx<'_>) -> Option<PathBuf> {
    let params = cx.params();
    warn_of_undeclared(cx);
    let name = known(params, 0)?;
    if name.is_empty() {
        cx.error("argv.0", "the name of the program is empty");
        return None;
    }
    match find(params, &name) {
        Ok(path) => Some(path),
        Err(not_found) => {
            let (message, help) = words(&name, &not_found, params.base());
            cx.error("argv.0", message).help(help);
            None
        }
    }
}

fn find(params: &Params, name: &str) -> Result<PathBuf, NotFound> {
    Program::find(name, params.base(), environment::search(params).as_deref())
}

/// The program that the argument `first`, all of it put in, names.
pub(super) fn resolve(params: &Params, first: &OsString) -> Result<PathBuf, StageError> {
    let name = first
        .to_str()
        .ok_or_else(|| StageError::failed(format!("the program's name is no UTF-8: {}", first.display())))?;
    find(params, name).map_err(|not_found| {
        let (message, help) = words(name, &not_found, params.base());
        StageError::missing(message).help(help)
    })
}

fn words(name: &str, not_found: &NotFound, folder: &Path) -> (String, String) {
    match not_found {
        NotFound::NotOnPath if folder.join(name).is_file() => (
            format!("`{name}` is not on the PATH, but a file of the workflow's folder"),
            format!("Write `./{name}`."),
        ),
        NotFound::NotOnPath => (
            format!("`{name}` is not on the PATH"),
            "Install it, or write its path; with a `/` in it, it is looked for from the workflow's folder."
                .into(),
        ),
        NotFound::Nothing(path) => (
            format!("there is no {}", path.display()),
            "A program with a `/` in its name is looked for from the workflow's folder.".into(),
        ),
        NotFound::Folder(path) => {
            (format!("{} is a folder", path.display()), "Name the program in it.".into())
        }
        NotFound::NotExecutable(path) => (
            format!("{} is not executable", path.display()),
            format!(
                "Make it so (`chmod +x {}`), or write its interpreter before it in `argv`.",
                path.display()
            ),
        ),
    }
}

/// The argument `index`, if it is known without a run.
fn known(params: &Params, index: usize) -> Option<String> {
    let argv: Vec<&str> = params.get("argv");
    let pieces = parse(argv.get(index)?).ok()?;
    let value = |piece: &Piece| match piece {
        Piece::Workflow => Ok(params.base().into()),
        Piece::Param(name) => {
            let value = params.get::<&Value>("params").get(name).and_then(param);
            value.map(OsString::from).ok_or(())
        }
        _ => Err(()),
    };
    join(&pieces, value).ok()?.into_string().ok()
}

/// The program, where it is a file of the workflow's own folder: then what it holds is part of what was read.
pub(super) fn of_the_workflow(params: &Params) -> Option<PathBuf> {
    let path = find(params, &known(params, 0)?).ok()?;
    path.starts_with(params.base()).then_some(path)
}

/// Warns of arguments that name files of the workflow's folder without a word in `files`.
fn warn_of_undeclared(cx: &mut PlanCx<'_>) {
    let params = cx.params();
    let place = |path: &Path| path.canonicalize().ok();
    let declared: Vec<PathBuf> =
        params.get::<Vec<PathBuf>>("files").iter().filter_map(|path| place(path)).collect();
    for (i, path) in params.get::<Vec<PathBuf>>("files").iter().enumerate() {
        if path.exists() && !path.is_file() {
            cx.error(&format!("files.{i}"), format!("{} is not a regular file", path.display()))
                .help("Name the files in it that the result depends on.");
        }
    }
    let Some(folder) = place(params.base()) else { return };
    for index in 1..params.get::<Vec<&str>>("argv").len() {
        let Some(argument) = known(params, index).filter(|argument| !argument.is_empty()) else { continue };
        let path = params.base().join(&argument);
        let Some(there) = place(&path).filter(|there| there.is_file() && there.starts_with(&folder)) else {
            continue;
        };
        if !declared.contains(&there) {
            cx.warning(&format!("argv.{index}"), format!("`files` does not name {argument}"))
                .label("a file of the workflow's folder")
                .help("What is not named there can change without the stage being run again.");
        }
    }
}
