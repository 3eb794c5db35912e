//! One stage of a run: whether its result is there, else its work and the seal on what it made.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::begun::{self, Begun};
use crate::context::{Reporter, StageCx};
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::panic::words_of;
use crate::plan::PlannedStage;
use crate::time::now;
use crate::{Artifact, Error, Event, Outcome, Plan, Registry, StageError, atomic, outside};

/// One stage of a run at work.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    /// The run's folder.
    pub(crate) run: &'a Path,
    pub(crate) registry: &'a Registry,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) cancel: &'a Arc<AtomicBool>,
    pub(crate) stage: &'a PlannedStage,
    /// Its place in the order, from 0.
    pub(crate) index: usize,
    /// What it is made from within the run.
    pub(crate) begun: Begun,
}

impl Job<'_> {
    fn folder(&self) -> PathBuf {
        self.run.join(&self.stage.name)
    }

    /// The result of an earlier attempt, if it is there and whole.
    pub(crate) fn done(&self) -> Result<Option<Manifest>, Error> {
        let folder = self.folder();
        let Some(mut manifest) = Manifest::read(&folder) else { return Ok(None) };
        let name = &self.stage.name;
        if let Some(objection) = manifest.objection(&folder, &self.begun, &self.plan.folder) {
            let message = format!("{}; the stage is done again", objection.message);
            self.journal.emit(&Event::Warning { stage: name.clone(), message });
            let path = folder.join(manifest::FILE);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            if objection.stale {
                fs::remove_dir_all(&folder).map_err(Error::io("clear", &folder))?;
            }
            return Ok(None);
        }
        let files = match manifest.outputs.len() {
            0 => String::new(),
            1 => ", its file verified".into(),
            n => format!(", its {n} files verified"),
        };
        let reason = format!("done in this run at {}{files}", manifest.finished);
        self.journal.emit(&Event::StageSkipped { stage: name.clone(), reason });
        // The run may have been moved since.
        manifest.artifact.dir = folder;
        Ok(Some(manifest))
    }

    /// Runs the stage and seals its result.
    pub(crate) fn work(&self, artifacts: &[Artifact]) -> Result<Manifest, Error> {
        let folder = self.folder();
        let begun = Instant::now();
        let sealed =
            self.run_stage(artifacts, &folder).and_then(|outcome| self.seal(outcome, &folder, begun));
        match &sealed {
            Ok(manifest) => self.journal.emit(&Event::StageFinished {
                stage: self.stage.name.clone(),
                seconds: manifest.seconds,
                summary: manifest.summary.clone(),
            }),
            Err(error) => {
                let message = match error {
                    Error::Stage { error, .. } => error.to_string(),
                    other => other.to_string(),
                };
                let (stage, class) = (self.stage.name.clone(), error.class());
                self.journal.emit(&Event::StageFailed { stage, class, message });
            }
        }
        sealed
    }

    fn run_stage(&self, artifacts: &[Artifact], folder: &Path) -> Result<Outcome, Error> {
        let stage = self.stage;
        let failed = |error| Error::Stage { run: self.run.to_owned(), stage: stage.name.clone(), error };
        if self.cancel.load(Ordering::Relaxed) {
            return Err(failed(StageError::interrupted("stopped before it began")));
        }
        let resumed = self.prepare(folder)?;
        self.journal.emit(&Event::StageStarted {
            stage: stage.name.clone(),
            uses: stage.uses.clone(),
            index: self.index + 1,
            of: self.plan.stages.len(),
            resumed,
        });
        let kind = self.registry.find(&stage.uses).map(|entry| &*entry.kind);
        let kind = kind.ok_or_else(|| failed(StageError::bug("the plan is of another registry")))?;
        let mut cx = StageCx {
            plan: self.plan,
            stage,
            artifacts,
            folder: folder.to_owned(),
            resumed,
            reporter: Reporter { stage: stage.name.as_str().into(), journal: Arc::clone(self.journal) },
            cancel: Arc::clone(self.cancel),
        };
        let _span = tracing::info_span!("stage", name = stage.name).entered();
        let result = catch_unwind(AssertUnwindSafe(|| kind.run(&mut cx)));
        result.unwrap_or_else(|panic| Err(StageError::bug(words_of(&*panic)))).map_err(failed)
    }

    /// Makes the stage's folder a place to work in, and says whether there is anything in it to go on from: only what
    /// was begun with the same may stay.
    fn prepare(&self, folder: &Path) -> Result<bool, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        atomic::remove_leftovers(folder).map_err(Error::io("clean", folder))?;
        let names = fs::read_dir(folder).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let left = names.map_err(Error::io("list", folder))?.iter().any(|name| *name != begun::FILE);
        let difference = match Begun::read(folder) {
            Some(before) => before.difference(&self.begun),
            None => left.then(|| "it is not known what the files in its folder were made from".into()),
        };
        if let Some(difference) = &difference {
            if left {
                let message = format!("{difference}; the stage begins afresh");
                self.journal.emit(&Event::Warning { stage: self.stage.name.clone(), message });
            }
            fs::remove_dir_all(folder).map_err(Error::io("clear", folder))?;
            fs::create_dir(folder).map_err(Error::io("create", folder))?;
        }
        self.begun.write(folder)?;
        Ok(left && difference.is_none())
    }

    fn seal(&self, outcome: Outcome, folder: &Path, begun: Instant) -> Result<Manifest, Error> {
        let stage = self.stage;
        let outputs = manifest::outputs(folder, &outcome)?;
        let read = outside::look(&self.plan.folder, &outcome.read)?;
        let artifact = Artifact {
            stage: stage.name.clone(),
            kind: stage.produces.clone(),
            dir: folder.to_owned(),
            info: outcome.info,
        };
        let manifest = Manifest {
            format: manifest::FORMAT,
            stage: stage.name.clone(),
            uses: stage.uses.clone(),
            params: stage.params.json().clone(),
            begun: self.begun.clone(),
            result: manifest::result(&artifact, &read, &outputs),
            artifact,
            summary: outcome.summary,
            report: outcome.report,
            seconds: begun.elapsed().as_secs_f64(),
            finished: now(),
            read,
            outputs,
        };
        manifest.write(folder)?;
        Ok(manifest)
    }
}
