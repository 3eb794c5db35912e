//! A run for people: a bar for the stage at work on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fp8flow_flow::{Class, Event, Observer};
use fp8flow_report::words::duration;
use indicatif::{ProgressBar, ProgressStyle};

use crate::screen::Screen;

/// Where there is no bar, progress is a line so often.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Lines of a stage stand under its heading.
const INDENT: &str = "      ";

/// Shows the events of a run.
pub(crate) struct Human {
    screen: Screen,
    quiet: bool,
    /// Whether this is told of a run of another process, maybe long ago: no bars, and all of it is what was asked for.
    told: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The stages at work.
    stages: Vec<String>,
    bars: BTreeMap<String, ProgressBar>,
    /// When a stage's progress was last a line.
    lines: BTreeMap<String, Instant>,
}

impl Human {
    pub(crate) fn new(screen: Screen, quiet: bool) -> Self {
        Self { screen, quiet, told: false, state: Mutex::new(State::default()) }
    }

    /// For the events of another process.
    pub(crate) fn telling(screen: Screen, quiet: bool) -> Self {
        Self { told: true, ..Self::new(screen, quiet) }
    }

    fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.screen.print(line);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says a line of a stage, with its name where others are at work beside it.
    fn say_of(&self, stage: &str, line: impl Display) {
        let beside = self.state().stages.iter().any(|other| other != stage);
        let who = if beside { format!("{stage}: ") } else { String::new() };
        self.say(format!("{INDENT}{who}{line}"));
    }

    fn progress(
        &self,
        stage: &str,
        done: u64,
        total: Option<u64>,
        unit: &str,
        message: &str,
        moment: Instant,
    ) {
        let mut state = self.state();
        if self.quiet {
            return;
        }
        if !self.told && self.screen.has_bars() {
            let bar = state.bars.entry(stage.to_owned()).or_insert_with(|| {
                let bar = self.screen.bars().add(bar(total, unit));
                // A stage that goes on has not done its first steps in this moment.
                bar.set_position(done);
                bar.reset_eta();
                bar
            });
            bar.set_position(done);
            bar.set_message(message.to_owned());
            return;
        }
        let last = Some(done) == total;
        let before = state.lines.get(stage);
        if last || before.is_none_or(|line| moment.saturating_duration_since(*line) >= BETWEEN_LINES) {
            state.lines.insert(stage.to_owned(), moment);
            drop(state);
            let of = total.map_or(String::new(), |total| format!(" of {total}"));
            let comma = if message.is_empty() { "" } else { ", " };
            self.say_of(stage, format_args!("{unit} {done}{of}{comma}{message}"));
        }
    }

    fn end_of_stage(&self, stage: &str) {
        let mut state = self.state();
        if let Some(bar) = state.bars.remove(stage) {
            bar.finish_and_clear();
            self.screen.bars().remove(&bar);
        }
        state.lines.remove(stage);
        state.stages.retain(|other| other != stage);
    }
}

fn bar(total: Option<u64>, unit: &str) -> ProgressBar {
    let template = if total.is_some() {
        format!("{INDENT}{{bar:24.cyan/blue}} {unit} {{pos}} of {{len}}, {{msg}} ({{eta}} left)")
    } else {
        format!("{INDENT}{{spinner}} {unit} {{pos}}, {{msg}} ({{elapsed}})")
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total.unwrap_or(0)).with_style(style.progress_chars("━╸─"))
}

impl Observer for Human {
    fn on(&self, event: &Event) {
        self.at(event, Instant::now());
    }
}

impl Human {
    /// Shows an event that happened at `moment`.
    pub(crate) fn at(&self, event: &Event, moment: Instant) {
        match event {
            Event::RunStarted { run, folder, workflow, .. } => {
                self.say(format!("run {run} of {workflow}, in {folder}"));
            }
            Event::RunResumed { run, folder, workflow, reason, .. } => {
                self.say(format!("run {run} of {workflow} goes on, in {folder}\n{INDENT}{reason}"));
            }
            Event::StageStarted { stage, uses, index, of, resumed, reason } => {
                let again = if *resumed { ", goes on" } else { "" };
                self.say(format!("[{index}/{of}] {stage} ({uses}{again})"));
                self.state().stages.push(stage.clone());
                if !reason.is_empty() {
                    self.say_of(stage, reason);
                }
            }
            Event::StageCached { stage, reason, .. } | Event::StageSkipped { stage, reason } => {
                self.say(format!("[---] {stage}: {reason}"));
            }
            Event::Progress { stage, done, total, unit, message } => {
                self.progress(stage, *done, *total, unit, message, moment);
            }
            Event::Said { stage, line } => self.say_of(stage, line),
            Event::Warning { stage, message } => {
                let who = if stage.is_empty() { String::new() } else { format!("{stage}: ") };
                let line = format!("\x1b[1;33mwarning\x1b[0m: {who}{message}");
                if self.told { self.screen.print(line) } else { self.screen.complain(line) }
            }
            Event::StageFinished { stage, seconds, summary } => {
                let colon = if summary.is_empty() { "" } else { ": " };
                self.say_of(stage, format_args!("done in {}{colon}{summary}", duration(*seconds)));
                self.end_of_stage(stage);
            }
            Event::StageFailed { stage, class, message } => {
                self.end_of_stage(stage);
                // Of a run of this process the error is shown where it ends.
                if self.told {
                    let (colour, word) =
                        if *class == Class::Interrupted { ("33", "stopped") } else { ("91", "error") };
                    self.screen.print(format!("\x1b[1;{colour}m{word}\x1b[0m: stage `{stage}`: {message}"));
                }
            }
            Event::Report { lines } if !lines.is_empty() => {
                self.screen.print(format!("\n{}\n", lines.join("\n")));
            }
            Event::RunFinished { status, seconds, .. } => {
                self.say(format!("{status} after {}", duration(*seconds)));
            }
            _ => {}
        }
    }
}
