//! What the events of a run tell beside its files.

use std::collections::{BTreeMap, VecDeque};

use fp8flow_flow::{Entry, Event, Events, Seen};
use serde_json::Value;

use crate::ReportError;

/// Lines that are kept of what was said, the last ones.
const SAID: usize = 400;
/// Warnings that are kept, the first ones.
const WARNINGS: usize = 100;

/// What was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// Of each stage, why it ran or where its result was taken from.
    pub(crate) reasons: BTreeMap<String, String>,
    /// When each stage was begun last.
    pub(crate) began: BTreeMap<String, String>,
    /// Steps in all and in an epoch, of each training stage.
    pub(crate) steps: BTreeMap<String, (u64, u64)>,
    /// When the run went on, and why it had stopped.
    pub(crate) resumed: Vec<(String, String)>,
    /// Warnings with their stages.
    pub(crate) warnings: Vec<(String, String)>,
    /// How many more there were.
    pub(crate) more_warnings: usize,
    /// What was said, with the stages.
    pub(crate) said: VecDeque<(String, String)>,
}

impl Notes {
    pub(crate) fn read(run: &Seen) -> Result<Self, ReportError> {
        let mut notes = Self::default();
        let mut events = Events::of(&run.folder);
        while let Some(line) = events.line()? {
            // One for each step, and of no interest here.
            if line.get(..80).is_some_and(|head| head.contains(r#""event":"metrics""#)) {
                continue;
            }
            if let Some(Entry { time, event }) = events.entry(&line)? {
                notes.hear(time, event);
            }
        }
        Ok(notes)
    }

    fn hear(&mut self, time: String, event: Event) {
        match event {
            Event::RunResumed { reason, .. } => self.resumed.push((time, reason)),
            Event::StageStarted { stage, reason, .. } => {
                self.began.insert(stage.clone(), time);
                self.reasons.insert(stage, reason);
            }
            Event::StageCached { stage, reason, .. } => {
                self.reasons.insert(stage, reason);
            }
            Event::Warning { stage, message } if self.warnings.len() < WARNINGS => {
                self.warnings.push((stage, message));
            }
            Event::Warning { .. } => self.more_warnings += 1,
            Event::Said { stage, line } => {
                if self.said.len() == SAID {
                    self.said.pop_front();
                }
                self.said.push_back((stage, line));
            }
            Event::Note { stage, values } => {
                if let (Some(steps), Some(of_epoch)) =
                    (values["steps"].as_u64(), values.get("steps_per_epoch").and_then(Value::as_u64))
                {
                    self.steps.insert(stage, (steps, of_epoch));
                }
            }
            _ => {}
        }
    }
}
