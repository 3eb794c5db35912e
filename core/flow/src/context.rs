//! What a stage sees while it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::cache::clear;
use crate::consulted::{FACTS, SEED};
use crate::journal::Journal;
use crate::plan::{Plan, PlannedSection, PlannedStage};
use crate::{Artifact, Class, Event, Params, StageError, begun};

/// What a stage sees while it runs.
pub struct StageCx<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) stage: &'a PlannedStage,
    pub(crate) artifacts: &'a [Artifact],
    pub(crate) folder: PathBuf,
    pub(crate) resumed: bool,
    pub(crate) reporter: Reporter,
    pub(crate) cancel: Arc<AtomicBool>,
    /// What the stage has looked at: [`crate::consulted`].
    pub(crate) consulted: Mutex<BTreeSet<String>>,
}

impl<'a> StageCx<'a> {
    /// The stage's name in the workflow.
    pub fn name(&self) -> &'a str {
        &self.stage.name
    }

    /// The values of the stage's keys.
    pub fn params(&self) -> &'a Params {
        &self.stage.params
    }

    /// What the stage said when it was planned.
    pub fn facts(&self) -> &'a Value {
        self.note_consulted(FACTS);
        &self.stage.facts
    }

    /// The stage's own folder. It exists; a fresh stage finds it empty but for the engine's own `.begun.json`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes everything from the stage's own folder but what belongs to the engine and the names `keep`: for a stage that
    /// begins from nothing once more.
    pub fn empty_folder(&self, keep: &[&str]) -> Result<(), StageError> {
        let failed = |error| StageError::io(&self.folder, error);
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name != begun::FILE && !keep.iter().any(|kept| name == *kept) {
                let path = self.folder.join(name);
                clear(&path).map_err(|error| StageError::new(Class::Io, error))?;
            }
        }
        Ok(())
    }

    /// Whether the stage was begun before, with the same values and inputs, and left in the middle: its folder holds
    /// what it had written.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// The artifact at the end of the edge `edge`, which the field table requires.
    pub fn input(&self, edge: &str) -> &'a Artifact {
        self.optional_input(edge).unwrap_or_else(|| panic!("edge `{edge}` is not written, or not declared"))
    }

    /// The artifact at the end of the edge `edge`, where it is written.
    pub fn optional_input(&self, edge: &str) -> Option<&'a Artifact> {
        let (_, stage) = self.stage.inputs.iter().find(|(name, _)| name == edge)?;
        self.artifacts.iter().find(|artifact| artifact.stage == *stage)
    }

    /// The artifacts at the ends of the edges that the user has named in the table `key`, in the order of the file.
    pub fn inputs(&self, key: &str) -> Vec<(&'a str, &'a Artifact)> {
        let inputs = self.stage.inputs.iter().filter_map(|(edge, _)| {
            let name = edge.strip_prefix(key)?.strip_prefix('.')?;
            self.optional_input(edge).map(|artifact| (name, artifact))
        });
        inputs.collect()
    }

    /// A section of the workflow, such as `backend`.
    pub fn section(&self, name: &str) -> &'a PlannedSection {
        self.note_consulted(name);
        self.plan.section(name).unwrap_or_else(|| panic!("no section `{name}` is registered"))
    }

    /// The workflow's seed.
    pub fn seed(&self) -> u64 {
        self.note_consulted(SEED);
        self.plan.section("workflow").map_or(0, |workflow| workflow.params.get("seed"))
    }

    /// Digest of all values of the workflow that this stage's result can depend on: its own and those of the stages before
    /// it, and the sections.
    pub fn lineage(&self) -> &'a str {
        &self.stage.lineage
    }

    fn note_consulted(&self, name: &str) {
        self.consulted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// A voice that can be cloned and carried to other threads.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The flag that a signal sets. Look at it in every loop; when set, save what is worth it and return
    /// [`StageError::interrupted`].
    pub fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }

    /// Whether to stop.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Ends a stage that has nothing to save when it is asked to stop: `cx.stop_if_cancelled()?` in its loops.
    pub fn stop_if_cancelled(&self) -> Result<(), StageError> {
        if self.cancelled() { Err(StageError::interrupted("stopped as asked")) } else { Ok(()) }
    }
}

/// The voice of a stage: everything it says reaches the observer and `events.jsonl`.
#[derive(Clone)]
pub struct Reporter {
    pub(crate) stage: Arc<str>,
    pub(crate) journal: Arc<Journal>,
}

impl Reporter {
    /// How far the stage has come: `done` of `total` `unit`s (a singular noun), with the state in a few words.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str, message: impl Into<String>) {
        let (stage, unit, message) = (self.stage.to_string(), unit.into(), message.into());
        self.journal.emit(&Event::Progress { stage, done, total, unit, message });
    }

    /// Measured values: a JSON object.
    pub fn metrics(&self, values: Value) {
        self.journal.emit(&Event::Metrics { stage: self.stage.to_string(), values });
    }

    /// A line for people.
    pub fn say(&self, line: impl Into<String>) {
        self.journal.emit(&Event::Said { stage: self.stage.to_string(), line: line.into() });
    }

    /// Something a person should know although the work goes on.
    pub fn warn(&self, message: impl Into<String>) {
        self.journal.emit(&Event::Warning { stage: self.stage.to_string(), message: message.into() });
    }

    /// Anything else, for programs.
    pub fn note(&self, values: Value) {
        self.journal.emit(&Event::Note { stage: self.stage.to_string(), values });
    }
}

impl std::ops::Deref for StageCx<'_> {
    type Target = Reporter;

    /// `cx.say(…)`, `cx.progress(…)`: a stage speaks through its [`Reporter`].
    fn deref(&self) -> &Reporter {
        &self.reporter
    }
}
