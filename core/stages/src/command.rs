//! `command`: any program as a stage.
//!
//! What goes in is declared: results of other stages, files of the workflow, the environment. What comes out is declared
//! too, and is sealed by digest like any result. What happens in between is the program's own: its result is *recorded*,
//! never proven.

mod attempt;
mod duration;
mod ear;
mod environment;
mod fields;
mod given;
mod lines;
mod outputs;
mod placeholders;
mod program;
mod retry;
mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use fp8flow_flow::{
    Difference, Field, Outcome, Params, PlanCx, Planned, Redone, StageCx, StageError, StageKind, Threads,
    Tier,
};
use serde_json::{Value, json};

use crate::failure::digest;
use attempt::Attempt;
use settings::Settings;

pub(crate) struct Command;

/// The kind of the artifact: a folder with the files that were declared.
pub(crate) const FILES: &str = "files";

/// The fact, and the part of the artifact's info, that maps names of outputs to paths within the stage's folder.
pub(crate) const OUTPUTS: &str = "outputs";

/// What the program printed, within the stage's folder.
pub(crate) const LOG: &str = "log.txt";

/// What it measured.
pub(crate) const METRICS: &str = "metrics.jsonl";

impl StageKind for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn about(&self) -> &'static str {
        "Runs a program of yours on results of other stages. What it makes is recorded by digest, not proven."
    }

    fn produces(&self) -> &'static str {
        FILES
    }

    fn fields(&self) -> Vec<Field> {
        fields::fields()
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        outputs::check(cx);
        environment::check(cx);
        placeholders::check(cx);
        let settings = Settings::check(cx);
        let found = program::check(cx);
        let facts = json!({ OUTPUTS: cx.params().get::<Value>("outputs"), "program": found });
        let planned = Planned::new(facts);
        let planned = match found {
            Some(path) => planned.line(format!("the program is {}", path.display())),
            None => planned,
        };
        match settings.and_then(|settings| settings.timeout) {
            Some(timeout) => planned.line(format!("at most {}", duration::words(timeout))),
            None => planned,
        }
    }

    fn tier(&self) -> Tier {
        Tier::Recorded
    }

    fn threads(&self, params: &Params) -> Threads {
        params.get::<Option<usize>>("threads").map_or(Threads::All, Threads::Some)
    }

    fn is_function(&self, params: &Params) -> bool {
        params.get("cache")
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let settings = Settings::read(cx.params()).map_err(StageError::bug)?;
        let (read, digests) = files(cx)?;
        let mut number = 1;
        let ended = loop {
            cx.empty_folder(if number == 1 { &[] } else { &[LOG] })?;
            let attempt = Attempt { cx, settings: &settings, number };
            let ended = attempt.run()?;
            if ended.is_well() || number > settings.retry.max || !settings.retry.begins_again(&ended) {
                break ended;
            }
            let all = settings.retry.max + 1;
            cx.warn(format!("attempt {number} of {all}: {}; it begins again", ended.words(cx)));
            cx.note(json!({ "attempt": number, "ended": ended.cause() }));
            number += 1;
        };
        if !ended.is_well() {
            return Err(ended.error(cx, number));
        }
        if let Some((path, _)) =
            read.iter().zip(&digests).find(|(path, before)| digest(cx, path).as_ref() != Ok(*before))
        {
            cx.stop_if_cancelled()?;
            let message = format!("{} has changed while the program was at work", path.display());
            return Err(StageError::failed(message).help("Run again, and leave it as it is meanwhile."));
        }
        let outputs = outputs::collect(cx)?;
        let program = given::arguments(cx)?.first().map(|first| program::resolve(cx.params(), first));
        let mut outcome = Outcome::new(json!({ OUTPUTS: cx.params().get::<Value>("outputs") }))
            .account(json!({ "program": program.transpose()?, "attempts": number }))
            .aside([LOG, METRICS])
            .read(read)
            .summary(outputs.summary(number));
        for (name, path) in outputs.paths {
            outcome = outcome.report(format!("{}.{name}: {}", cx.name(), path.display()));
        }
        Ok(outcome)
    }

    fn differences(
        &self,
        _stage: &str,
        _redone: &Redone,
        files: Vec<Difference>,
    ) -> Result<Vec<Difference>, StageError> {
        // Programs tell the time.
        let told = |file: &Path| [LOG, METRICS].iter().any(|name| file == Path::new(name));
        Ok(files.into_iter().filter(|other| !other.file.as_deref().is_some_and(told)).collect())
    }
}

/// The files outside the run that the result depends on, with their digests before the program begins.
fn files(cx: &StageCx<'_>) -> Result<(Vec<PathBuf>, Vec<String>), StageError> {
    let mut read: Vec<PathBuf> = cx.params().get("files");
    read.extend(program::of_the_workflow(cx.params()));
    let digests = read.iter().map(|path| digest(cx, path)).collect::<Result<_, _>>()?;
    Ok((read, digests))
}
