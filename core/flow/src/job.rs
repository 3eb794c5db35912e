//! One stage of a run: whether its result is there, else its work and the seal on what it made.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::context::{Reporter, StageCx};
use crate::journal::{Journal, now};
use crate::manifest::{self, Manifest};
use crate::panic::words_of;
use crate::plan::PlannedStage;
use crate::{Artifact, Error, Event, Outcome, Plan, Registry, StageError, atomic};

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
    /// The results it is made from: edge, and digest.
    pub(crate) inputs: BTreeMap<String, String>,
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
        if let Some(objection) = manifest.objection(&folder, &self.inputs) {
            let message = format!("the result of `{name}` cannot be used again: {objection}");
            self.journal.emit(&Event::Warning { stage: name.clone(), message });
            let path = folder.join(manifest::FILE);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
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
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        atomic::remove_leftovers(folder).map_err(Error::io("clean", folder))?;
        let resumed = fs::read_dir(folder).map_err(Error::io("list", folder))?.next().is_some();
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

    fn seal(&self, outcome: Outcome, folder: &Path, begun: Instant) -> Result<Manifest, Error> {
        let stage = self.stage;
        let outputs = manifest::outputs(folder, &outcome)?;
        let artifact = Artifact {
            stage: stage.name.clone(),
            kind: stage.produces.clone(),
            dir: folder.to_owned(),
            info: outcome.info,
        };
        let manifest = Manifest {
            format: 1,
            stage: stage.name.clone(),
            uses: stage.uses.clone(),
            params: stage.params.json().clone(),
            inputs: self.inputs.clone(),
            result: manifest::result(&artifact, &outputs),
            artifact,
            summary: outcome.summary,
            report: outcome.report,
            seconds: begun.elapsed().as_secs_f64(),
            finished: now(),
            outputs,
        };
        manifest.write(folder)?;
        Ok(manifest)
    }
}
