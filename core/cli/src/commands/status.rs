//! `fp8flow status`: where a run stands, stage by stage.

use fp8flow_flow::{Seen, SeenStage, StageState, Standing};
use fp8flow_report::words::{duration, go_on, minute};
use fp8flow_train::metrics::tail;
use fp8flow_train::{CHECKPOINTS, Checkpoints, METRICS, StepMetrics};
use serde_json::{Value, json};

use crate::args::StatusArgs;
use crate::choose;
use crate::failure::Failure;
use crate::run_text::{colour, near, object, place};
use crate::screen::Screen;
use crate::table::{self, Cell};

const RESET: &str = "\x1b[0m";

/// The end of a metrics file that is read for the last step and the pace: some hundred steps.
const TAIL: u64 = 1 << 16;

/// A stage with what only its files say.
struct Shown {
    stage: SeenStage,
    /// The last step of a training stage that is not done.
    last: Option<StepMetrics>,
    /// Seconds to its end at the pace of the last steps.
    left: Option<f64>,
    checkpoints: Vec<u64>,
}

pub(super) fn status(args: &StatusArgs, screen: &Screen) -> Result<(), Failure> {
    let run = choose::one(&args.place.runs, args.run.as_deref())?;
    let stages = run.stages()?;
    let worked = stages.worked;
    let stages: Vec<Shown> =
        stages.all.into_iter().map(|stage| look(&run, stage)).collect::<Result<_, _>>()?;
    if screen.json() {
        screen.print(with_stages(&run, worked, &stages).to_string());
    } else {
        show(&run, worked, &stages, screen);
    }
    Ok(())
}

fn look(run: &Seen, stage: SeenStage) -> Result<Shown, Failure> {
    let folder = run.folder.join(&stage.name);
    let checkpoints = Checkpoints::new(folder.join(CHECKPOINTS), 1).steps()?;
    let begun = matches!(stage.state, StageState::Running | StageState::Stopped | StageState::Failed { .. });
    let trains = fp8flow_stages::is_training(&stage.uses);
    let steps: Vec<StepMetrics> =
        if begun && trains { tail(&folder.join(METRICS), TAIL)? } else { Vec::new() };
    let total = stage.progress.as_ref().and_then(|progress| progress.total);
    let last = steps.last().cloned();
    let left = match (&last, total) {
        (Some(last), Some(total)) if stage.state == StageState::Running => {
            let seconds: f64 =
                steps.iter().map(|step| step.tokens as f64 / step.tokens_per_s.max(1e-9)).sum();
            Some(seconds / steps.len() as f64 * total.saturating_sub(last.step) as f64)
        }
        _ => None,
    };
    Ok(Shown { stage, last, left, checkpoints })
}

fn show(run: &Seen, worked: f64, stages: &[Shown], screen: &Screen) {
    let record = &run.record;
    let folder = place(run);
    screen.print(format!("run {} of {}, in {}", record.id, record.workflow, near(&folder)));
    let who = run.holder.as_ref().map_or(String::new(), |who| format!(" ({who})"));
    let times = match record.attempts {
        0 | 1 => String::new(),
        n => format!(", begun {n} times"),
    };
    let code = record.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
    let (tint, word) = (colour(run.standing), run.standing.word());
    screen.print(format!(
        "{tint}{word}{RESET}{who}, {} of work since {} UTC{times}{code}\n",
        duration(worked),
        minute(&record.started)
    ));
    let rows: Vec<Vec<Cell>> = stages.iter().map(row).collect();
    for line in table::lines(&rows, "  ") {
        screen.print(line);
    }
    for Shown { stage, checkpoints, .. } in stages.iter().filter(|shown| !shown.checkpoints.is_empty()) {
        let steps: Vec<String> = checkpoints.iter().map(|step| format!("step {step}")).collect();
        let place = folder.join(&stage.name).join(CHECKPOINTS);
        screen.print(format!("\ncheckpoints of {}: {}, in {}", stage.name, steps.join(", "), near(&place)));
    }
    if let Some(error) = &record.error {
        let word = if run.standing == Standing::Interrupted { "stopped" } else { "error" };
        screen.print(format!("\n{tint}{word}{RESET}: {error}"));
    }
    if let Some(sentence) = advice(run) {
        screen.print(format!("\n{sentence}"));
    }
}

/// What can be done about a run that is not finished.
fn advice(run: &Seen) -> Option<String> {
    let goes_on = go_on(run);
    match run.standing {
        Standing::Finished | Standing::Running => None,
        Standing::Killed => {
            let crash = run.crash.as_ref().map(ToString::to_string);
            let why = crash.unwrap_or_else(|| "its process is gone without a word".into());
            Some(format!("{why}; goes on with: {goes_on}"))
        }
        Standing::Interrupted => Some(format!("goes on with: {goes_on}")),
        Standing::Failed => Some(format!("once that is mended, it goes on with: {goes_on}")),
    }
}

fn row(shown: &Shown) -> Vec<Cell> {
    let Shown { stage, .. } = shown;
    let (word, tint, words) = match &stage.state {
        StageState::Done { seconds, summary } => {
            let comma = if summary.is_empty() { "" } else { ", " };
            ("done", "\x1b[32m", format!("{}{comma}{summary}", duration(*seconds)))
        }
        StageState::Running => ("running", "\x1b[1;96m", progress(shown)),
        StageState::Stopped => ("stopped", "\x1b[33m", progress(shown)),
        StageState::Failed { message, .. } => {
            // All of it stands below.
            ("failed", "\x1b[1;91m", message.lines().next().unwrap_or_default().to_owned())
        }
        StageState::Waiting => ("not yet", "\x1b[2m", String::new()),
    };
    vec![Cell::new(word).colour(tint), Cell::new(&stage.name), Cell::new(&stage.uses), Cell::new(words)]
}

fn progress(shown: &Shown) -> String {
    let Shown { stage, last, left, .. } = shown;
    let total = stage.progress.as_ref().and_then(|progress| progress.total);
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    let Some(StepMetrics { step, loss, tokens_per_s, .. }) = last else {
        let Some(progress) = &stage.progress else { return String::new() };
        let comma = if progress.message.is_empty() { "" } else { ", " };
        return format!("{} {}{of}{comma}{}", progress.unit, progress.done, progress.message);
    };
    let left = left.map_or(String::new(), |left| format!(", {} left", duration(left)));
    format!("step {step}{of}, loss {loss:.4}, {tokens_per_s:.0} tokens/s{left}")
}

fn with_stages(run: &Seen, worked: f64, stages: &[Shown]) -> Value {
    let stages = stages.iter().map(|Shown { stage, last, left, checkpoints }| {
        let mut value = stage.json();
        value["last_step"] = json!(last);
        value["seconds_left"] = json!(left);
        value["checkpoints"] = json!(checkpoints);
        value
    });
    let goes_on = run.standing.is_unfinished().then(|| go_on(run));
    let mut value = object(run, ("holder", json!(run.holder)), worked, goes_on.as_deref());
    value["stages"] = stages.collect();
    value
}
