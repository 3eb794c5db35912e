//! The stages of a run from outside: those with a result by their manifests, the others by what the events say.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Class, Entry, Error, Event, Events, Seen, look, manifest, plan, time};

/// The stages of a run, in their order.
#[derive(Clone, Debug)]
pub struct Stages {
    /// All of them.
    pub all: Vec<SeenStage>,
    /// How long processes worked on the run, in seconds.
    pub worked: f64,
}

/// A stage, looked at.
#[derive(Clone, Debug)]
pub struct SeenStage {
    /// Its name, and that of its folder in the run's.
    pub name: String,
    /// Its kind.
    pub uses: String,
    /// Where it stands.
    pub state: StageState,
    /// How far it had come when it last said so, unless it is done.
    pub progress: Option<Progress>,
}

/// Where a stage stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StageState {
    /// It has a result.
    Done {
        /// How long it took, in the process that ended it.
        seconds: f64,
        /// Its result in one line.
        summary: String,
    },
    /// A process works on it.
    Running,
    /// It was begun, and left in the middle.
    Stopped,
    /// It ended without a result.
    Failed {
        /// Why, as a class.
        class: Class,
        /// Why, in words.
        message: String,
    },
    /// It was not begun.
    Waiting,
}

/// How far a stage has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: String,
    /// The state in a few words.
    pub message: String,
}

/// What is read of a `plan.json`.
#[derive(Deserialize)]
struct Planned {
    stages: Vec<PlannedStage>,
}

#[derive(Deserialize)]
struct PlannedStage {
    name: String,
    uses: String,
}

/// What is read of a `stage.json`.
#[derive(Deserialize)]
struct Sealed {
    summary: String,
    seconds: f64,
}

impl Seen {
    /// The first stage without a result, if there is one: by looking at names only.
    pub fn at(&self) -> Result<Option<String>, Error> {
        let sealed = |name: &str| self.folder.join(name).join(manifest::FILE).exists();
        Ok(planned(&self.folder)?.into_iter().map(|stage| stage.name).find(|name| !sealed(name)))
    }

    /// The names of the stages, in their order.
    pub fn stage_names(&self) -> Result<Vec<String>, Error> {
        Ok(planned(&self.folder)?.into_iter().map(|stage| stage.name).collect())
    }

    /// The names of the stages with their kinds, in their order.
    pub fn stage_kinds(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(planned(&self.folder)?.into_iter().map(|stage| (stage.name, stage.uses)).collect())
    }

    /// Every stage, by manifests and events.
    pub fn stages(&self) -> Result<Stages, Error> {
        let Told { mut stages, worked } = Told::read(self)?;
        let mut all = Vec::new();
        for PlannedStage { name, uses } in planned(&self.folder)? {
            let (state, progress) = stages.remove(&name).unwrap_or((StageState::Waiting, None));
            let path = self.folder.join(&name).join(manifest::FILE);
            all.push(if path.exists() {
                let Sealed { summary, seconds } = look::json(&path, manifest::FORMAT)?;
                SeenStage { name, uses, state: StageState::Done { seconds, summary }, progress: None }
            } else {
                SeenStage { name, uses, state, progress }
            });
        }
        Ok(Stages { all, worked })
    }
}

/// The stages of the plan; none in a run that was killed before it wrote one.
fn planned(run: &Path) -> Result<Vec<PlannedStage>, Error> {
    let path = run.join(plan::FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    look::json(&path, plan::FORMAT).map(|plan: Planned| plan.stages)
}

/// What the events say.
#[derive(Default)]
struct Told {
    stages: BTreeMap<String, (StageState, Option<Progress>)>,
    worked: f64,
}

impl Told {
    fn read(run: &Seen) -> Result<Self, Error> {
        let mut told = Self::default();
        let mut events = Events::of(&run.folder);
        // When the process of the moment began, and its last word.
        let mut process: Option<(String, String)> = None;
        while let Some(line) = events.line()? {
            // One for each step, and of no interest here: a long run has more of them than of all others.
            if line.get(..80).is_some_and(|head| head.contains(r#""event":"metrics""#)) {
                continue;
            }
            let Some(entry) = events.entry(&line)? else { continue };
            if let Event::RunStarted { .. } | Event::RunResumed { .. } = &entry.event {
                told.end(process.take());
            }
            let Entry { time, event } = entry;
            let began = process.take().map_or_else(|| time.clone(), |(began, _)| began);
            process = Some((began, time));
            told.hear(event);
        }
        if run.is_running() {
            if let Some((_, last)) = &mut process {
                *last = time::now();
            }
            told.worked += process.map_or(0.0, |(began, last)| seconds(&began, &last));
        } else {
            let failures = told.stages.clone();
            told.end(process);
            // Of the last process it is known how its stages ended.
            for (name, (state, progress)) in failures {
                if let StageState::Failed { .. } = state {
                    told.stages.insert(name, (state, progress));
                }
            }
        }
        Ok(told)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::StageStarted { stage, .. } => self.set(stage, StageState::Running),
            Event::StageFinished { stage, seconds, summary } => {
                self.set(stage, StageState::Done { seconds, summary });
            }
            Event::StageFailed { stage, class: Class::Interrupted, .. } => {
                self.set(stage, StageState::Stopped);
            }
            Event::StageFailed { stage, class, message } => {
                self.set(stage, StageState::Failed { class, message });
            }
            Event::Progress { stage, done, total, unit, message } => {
                let progress = Some(Progress { done, total, unit, message });
                self.stages.entry(stage).or_insert((StageState::Running, None)).1 = progress;
            }
            _ => {}
        }
    }

    fn set(&mut self, stage: String, state: StageState) {
        self.stages.entry(stage).or_insert((StageState::Waiting, None)).0 = state;
    }

    /// A process has ended: what it had not done is left in the middle. A result that is gone since was taken back.
    fn end(&mut self, process: Option<(String, String)>) {
        for (state, _) in self.stages.values_mut() {
            *state = StageState::Stopped;
        }
        self.worked += process.map_or(0.0, |(began, last)| seconds(&began, &last));
    }
}

fn seconds(from: &str, to: &str) -> f64 {
    time::between(from, to).unwrap_or_default().max(0.0)
}

impl SeenStage {
    /// The stage as JSON.
    pub fn json(&self) -> Value {
        let mut value = serde_json::json!({ "name": self.name, "uses": self.uses });
        if let (Some(fields), Ok(Value::Object(state))) =
            (value.as_object_mut(), serde_json::to_value(&self.state))
        {
            fields.extend(state);
            fields.insert("progress".into(), serde_json::json!(self.progress));
        }
        value
    }
}
