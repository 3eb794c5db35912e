//! Which run is meant.

use std::path::{Path, PathBuf};

use fp8flow_flow::{FoundRun, Seen, every_run};

use crate::failure::Failure;

/// How many runs are named where none was found.
const NAMED: usize = 5;

/// Every run in the folder `runs`, the newest last.
pub(crate) fn all(runs: &Path) -> Result<Vec<FoundRun>, Failure> {
    if !runs.is_dir() {
        return Err(Failure::usage(
            format!("there is no folder of runs at {}", runs.display()),
            "Name it with `--runs DIR`: it is `runs` beside the workflow, unless `run` was told another.",
        ));
    }
    Ok(every_run(runs)?)
}

/// The run that `word` names, by its folder or within `runs`; the newest of these without a word.
pub(crate) fn one(runs: &Path, word: Option<&str>) -> Result<Seen, Failure> {
    let Some(word) = word else {
        let mut all = all(runs)?;
        let newest = all.iter().rposition(|(_, record)| record.is_ok());
        let Some((path, record)) = newest.map(|newest| all.swap_remove(newest)).or_else(|| all.pop()) else {
            return Err(Failure::usage(
                format!("there is no run in {}", runs.display()),
                "Begin one: `fp8flow run WORKFLOW`.",
            ));
        };
        record?;
        return Ok(Seen::look(&path)?);
    };
    let named = runs.join(word);
    for folder in [&named, Path::new(word)] {
        if folder.join("run.json").is_file() {
            return Ok(Seen::look(&resolved(folder))?);
        }
    }
    if Path::new(word).is_dir() {
        return Err(Failure::usage(format!("{word} is no run: it holds no run.json"), ""));
    }
    let all = all(runs)?;
    let named: Vec<&Path> = all.iter().map(|(path, _)| &**path).collect();
    let fits: Vec<&Path> = named.iter().copied().filter(|path| name(path).starts_with(word)).collect();
    match fits[..] {
        [folder] => Ok(Seen::look(folder)?),
        [] => {
            let help = match named.len() {
                0 => "There are none.".to_owned(),
                n if n <= NAMED => format!("There are: {}.", list(&named)),
                n => format!(
                    "The newest are: {}; `fp8flow runs list` shows all {n}.",
                    list(&named[n - NAMED..])
                ),
            };
            Err(Failure::usage(format!("there is no run `{word}` in {}", runs.display()), help))
        }
        _ => Err(Failure::usage(
            format!("{} runs in {} begin with `{word}`", fits.len(), runs.display()),
            format!("Say more of one of them: {}.", list(&fits[fits.len().saturating_sub(NAMED)..])),
        )),
    }
}

/// `folder`, or where it leads: `latest` is a link.
fn resolved(folder: &Path) -> PathBuf {
    match std::fs::read_link(folder) {
        Ok(target) => folder.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => folder.to_owned(),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(paths: &[&Path]) -> String {
    paths.iter().map(|path| name(path)).collect::<Vec<_>>().join(", ")
}
