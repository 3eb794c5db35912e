//! What happens in a run, as it happens: one stream for the terminal, for `--json` and for `events.jsonl`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Class;
use crate::time::now;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A new run begins.
    RunStarted {
        /// Its id, the name of its folder.
        run: String,
        /// Its folder.
        folder: String,
        /// The workflow's name.
        workflow: String,
        /// Its stages, in the order they will run.
        stages: Vec<String>,
    },
    /// An unfinished run goes on.
    RunResumed {
        /// Its id.
        run: String,
        /// Its folder.
        folder: String,
        /// The workflow's name.
        workflow: String,
        /// Its stages, in the order they will run.
        stages: Vec<String>,
        /// Where it stopped, for people.
        reason: String,
    },
    /// A stage begins.
    StageStarted {
        /// Its name.
        stage: String,
        /// Its kind.
        uses: String,
        /// Its place in the order, from 1.
        index: usize,
        /// How many stages there are.
        of: usize,
        /// Whether it was interrupted before and goes on.
        resumed: bool,
        /// Why it runs: what has changed since the nearest result that is stored. Empty where it goes on, and where
        /// nobody looked.
        #[serde(default)]
        reason: String,
    },
    /// A stage is not run: its result was made by another run and is stored.
    StageCached {
        /// Its name.
        stage: String,
        /// The run that made it.
        run: String,
        /// When.
        finished: String,
        /// The same for people.
        reason: String,
    },
    /// How far a stage has come.
    Progress {
        /// Its name.
        stage: String,
        /// Units done.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
        /// What is counted: `step`, `row`, `byte`.
        unit: String,
        /// The state in a few words: `loss 2.31, 5120 tokens/s`.
        message: String,
    },
    /// Measured values, one object a step.
    Metrics {
        /// The stage.
        stage: String,
        /// The values.
        values: Value,
    },
    /// A line for people.
    Said {
        /// The stage.
        stage: String,
        /// The line.
        line: String,
    },
    /// Something a person should know although the work goes on.
    Warning {
        /// The stage, or empty for the run as a whole.
        stage: String,
        /// What.
        message: String,
    },
    /// Anything else a stage tells programs.
    Note {
        /// The stage.
        stage: String,
        /// What.
        values: Value,
    },
    /// A stage is not run again: its result is there.
    StageSkipped {
        /// Its name.
        stage: String,
        /// Why, for people.
        reason: String,
    },
    /// A stage is done.
    StageFinished {
        /// Its name.
        stage: String,
        /// How long it ran, in this process.
        seconds: f64,
        /// Its result in one line.
        summary: String,
    },
    /// A stage ended without a result.
    StageFailed {
        /// Its name.
        stage: String,
        /// Why, as a class.
        class: Class,
        /// Why, in words.
        message: String,
    },
    /// The report of a finished run, line by line.
    Report {
        /// The lines.
        lines: Vec<String>,
    },
    /// The run ended, well or not.
    RunFinished {
        /// `finished`, `interrupted` or `failed`.
        status: String,
        /// How long it ran, in this process.
        seconds: f64,
        /// The process's exit code.
        exit_code: u8,
    },
}

impl Event {
    /// The stage it is about, if it is about one.
    pub fn stage(&self) -> Option<&str> {
        let stage = match self {
            Self::StageStarted { stage, .. }
            | Self::Progress { stage, .. }
            | Self::Metrics { stage, .. }
            | Self::Said { stage, .. }
            | Self::Warning { stage, .. }
            | Self::Note { stage, .. }
            | Self::StageSkipped { stage, .. }
            | Self::StageCached { stage, .. }
            | Self::StageFinished { stage, .. }
            | Self::StageFailed { stage, .. } => stage,
            Self::RunStarted { .. }
            | Self::RunResumed { .. }
            | Self::Report { .. }
            | Self::RunFinished { .. } => {
                return None;
            }
        };
        Some(stage.as_str()).filter(|stage| !stage.is_empty())
    }

    /// The event as one line of JSON, without the newline: the `time` first, then its fields. `events.jsonl` and
    /// `--json` are made of such lines.
    pub fn line(&self) -> String {
        let mut line = Map::new();
        line.insert("time".into(), now().into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            line.extend(fields);
        }
        Value::Object(line).to_string()
    }
}

/// Receives the events of a run, in order, from any thread.
pub trait Observer: Send + Sync {
    /// Takes note of `event`.
    fn on(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn on(&self, event: &Event) {
        self(event);
    }
}
