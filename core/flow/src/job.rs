//! One stage of a run: whether its result is there or stored, else its work and the seal on what it made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::begun::{self, Begun};
use crate::cache::{Cache, Exchange, StoredState, clear};
use crate::consulted;
use crate::context::{Reporter, StageCx};
use crate::explain::NO_FUNCTION;
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::outside::Watch;
use crate::panic::words_of;
use crate::plan::PlannedStage;
use crate::planner::existing_paths;
use crate::time::now;
use crate::{Artifact, Error, Event, Outcome, Plan, Registry, StageError, atomic, outside, relocate, store};

/// One stage of a run at work.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    /// The run's folder.
    pub(crate) run: &'a Path,
    /// Its name.
    pub(crate) id: &'a str,
    /// Where results of other runs are, and this one's go.
    pub(crate) cache: &'a Cache<'a>,
    pub(crate) exchange: Exchange,
    pub(crate) registry: &'a Registry,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) cancel: &'a Arc<AtomicBool>,
    pub(crate) stage: &'a PlannedStage,
    /// Its place in the order, from 0.
    pub(crate) index: usize,
    /// What it is made from, as far as that is known before.
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
            } else {
                store::detach(&manifest, &folder)?;
            }
            return Ok(None);
        }
        let reason = format!("done in this run at {}{}", manifest.finished, verified(&manifest));
        self.journal.emit(&Event::StageSkipped { stage: name.clone(), reason });
        // The run may have been moved since.
        relocate::into(&mut manifest, &folder, &self.plan.folder);
        Ok(Some(manifest))
    }

    /// The result of another run, brought into this one, if one is stored that this stage would make; else why it must run
    /// although one is, if so.
    pub(crate) fn cached(&self) -> Result<Manifest, Option<String>> {
        if self.exchange != Exchange::Both {
            return Err(None);
        }
        let name = &self.stage.name;
        let looked = self.cache.look(self.stage, &self.begun);
        for (manifest, object, words) in &looked.damaged {
            let message = format!("{words}; this stored result of run {} is removed", manifest.run);
            self.journal.emit(&Event::Warning { stage: name.clone(), message });
            self.cache.store.forget(manifest, object);
        }
        let manifest = looked.hit.ok_or(looked.occupied)?;
        let manifest = match self.cache.restore(self.stage, &self.begun, manifest, self.run) {
            Ok(manifest) => manifest,
            // A sweeper may have been faster, or there may be no room: the work itself will tell.
            Err(error) => {
                let message = format!("its stored result cannot be used: {error}");
                self.journal.emit(&Event::Warning { stage: name.clone(), message });
                return Err(None);
            }
        };
        self.link();
        self.journal.emit(&Event::StageCached {
            stage: name.clone(),
            run: manifest.run.clone(),
            finished: manifest.finished.clone(),
            reason: format!("made by run {} at {}{}", manifest.run, manifest.finished, verified(&manifest)),
        });
        Ok(manifest)
    }

    /// Lets the run's own folder lead to what the stage shows.
    fn link(&self) {
        let kind = self.registry.find(&self.stage.uses).map(|entry| &*entry.kind);
        for name in kind.map_or(&[][..], |kind| kind.links()) {
            // A convenience: a file system without links, or a link that is there, is no reason to stop.
            #[cfg(unix)]
            let _ = std::os::unix::fs::symlink(Path::new(&self.stage.name).join(name), self.run.join(name));
        }
    }

    /// Runs the stage on the results that are `given` and seals its own; `occupied` says why though a result is stored.
    pub(crate) fn work(&self, given: &[Manifest], occupied: Option<String>) -> Result<Manifest, Error> {
        let folder = self.folder();
        let begun = Instant::now();
        let sealed =
            self.run_stage(given, occupied, &folder).and_then(|worked| self.seal(worked, &folder, begun));
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

    fn run_stage(
        &self,
        given: &[Manifest],
        occupied: Option<String>,
        folder: &Path,
    ) -> Result<(Outcome, BTreeSet<String>), Error> {
        let stage = self.stage;
        let failed = |error| Error::Stage { run: self.run.to_owned(), stage: stage.name.clone(), error };
        if self.cancel.load(Ordering::Relaxed) {
            return Err(failed(StageError::interrupted("stopped before it began")));
        }
        // What others have read outside the run is often only pointed at, and read here.
        for input in given {
            if let Some(difference) = input.read.iter().find_map(|read| read.difference(&self.plan.folder)) {
                let message = format!("{difference} stage `{}` read it", input.stage);
                let help = "Run again: what depends on it is done again.";
                return Err(failed(StageError::failed(message).help(help)));
            }
        }
        let left = self.prepare(folder)?;
        let state = if left { None } else { self.go_on_from_stored(folder)? };
        let resumed = left || state.is_some();
        let reason = if let Some(state) = state {
            format!("from the state of run {} after step {}, its files verified", state.run, state.step)
        } else if self.exchange == Exchange::Neither && !self.cache.is_function(stage) {
            NO_FUNCTION.into()
        } else if left || self.exchange != Exchange::Both {
            String::new()
        } else {
            self.cache.reason(stage, &self.begun, occupied).0
        };
        self.journal.emit(&Event::StageStarted {
            stage: stage.name.clone(),
            uses: stage.uses.clone(),
            index: self.index + 1,
            of: self.plan.stages.len(),
            resumed,
            reason,
        });
        self.link();
        let kind = self.registry.find(&stage.uses).map(|entry| &*entry.kind);
        let kind = kind.ok_or_else(|| failed(StageError::bug("the plan is of another registry")))?;
        let artifacts: Vec<Artifact> = given.iter().map(|input| input.artifact.clone()).collect();
        let mut cx = StageCx {
            plan: self.plan,
            stage,
            artifacts: &artifacts,
            folder: folder.to_owned(),
            resumed,
            reporter: Reporter { stage: stage.name.as_str().into(), journal: Arc::clone(self.journal) },
            cancel: Arc::clone(self.cancel),
            consulted: Mutex::default(),
        };
        let _span = tracing::info_span!("stage", name = stage.name).entered();
        let own = existing_paths(&kind.fields(), stage.params.json(), "").into_iter();
        let own = own.map(|(_, path)| stage.params.base().join(path));
        let of_others =
            given.iter().flat_map(|input| &input.read).map(|read| self.plan.folder.join(&read.path));
        let mut read: Vec<PathBuf> = of_others.collect();
        let watch = Watch::over(own.chain(read.clone()));
        let result = catch_unwind(AssertUnwindSafe(|| kind.run(&mut cx)));
        let outcome = result.unwrap_or_else(|panic| Err(StageError::bug(words_of(&*panic))));
        let consulted = cx.consulted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcome = outcome.map_err(failed)?;
        // Its result may be of what the file held before, and its digest of what it holds now.
        read.extend(outcome.read.iter().cloned());
        if let Some(path) = watch.changed(&read) {
            let message = format!("{} has changed while the stage was at work", path.display());
            let help = "Run again, and leave it as it is meanwhile.";
            return Err(failed(StageError::failed(message).help(help)));
        }
        Ok((outcome, consulted))
    }

    /// Brings the furthest state that other runs have on the way of this one's into the folder, if there is one.
    fn go_on_from_stored(&self, folder: &Path) -> Result<Option<StoredState>, Error> {
        if self.exchange != Exchange::Both {
            return Ok(None);
        }
        let Some(state) = self.cache.state(self.stage, &self.begun) else { return Ok(None) };
        match self.cache.go_on_from(self.stage, &self.begun, &state, self.run) {
            Ok(()) => Ok(Some(state)),
            Err(error) => {
                let message = format!("a stored state to go on from cannot be used: {error}");
                self.journal.emit(&Event::Warning { stage: self.stage.name.clone(), message });
                // What has come of it so far is no place to work in.
                self.prepare(folder).map(|_| None)
            }
        }
    }

    /// Makes the stage's folder a place to work in, and says whether there is anything in it to go on from: only what
    /// was begun with the same may stay.
    fn prepare(&self, folder: &Path) -> Result<bool, Error> {
        clear(&self.run.join(format!(".{}.new", self.stage.name)))?;
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

    fn seal(
        &self,
        (outcome, consulted): (Outcome, BTreeSet<String>),
        folder: &Path,
        begun: Instant,
    ) -> Result<Manifest, Error> {
        let (stage, plan) = (self.stage, self.plan);
        let wrote = manifest::wrote(&outcome)?;
        let proceed = || !self.cancel.load(Ordering::Relaxed);
        let Some(outputs) = manifest::outputs(folder, &wrote, &proceed)? else {
            let error = StageError::interrupted("stopped while its result was sealed");
            return Err(Error::Stage { run: self.run.to_owned(), stage: stage.name.clone(), error });
        };
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
            consulted: consulted::consult(plan, self.registry, self.cache.binding, stage, &consulted),
            workflow: plan.folder.clone(),
            run: self.id.to_owned(),
            result: {
                let counting = manifest::counting(&outputs, &outcome.aside);
                manifest::result(&artifact, &plan.folder, &read, counting)
            },
            artifact,
            account: outcome.account,
            aside: outcome.aside,
            summary: outcome.summary,
            report: outcome.report,
            seconds: begun.elapsed().as_secs_f64(),
            finished: now(),
            read,
            wrote,
            outputs,
        };
        manifest.write(folder)?;
        // The run has its result; that others have it too is a convenience.
        if self.exchange != Exchange::Neither
            && let Err(error) = self.cache.store.keep(&manifest, folder)
        {
            let message = format!("its result is not stored for other runs: {error}");
            self.journal.emit(&Event::Warning { stage: stage.name.clone(), message });
        }
        Ok(manifest)
    }
}

/// What was checked before `manifest` was believed.
fn verified(manifest: &Manifest) -> String {
    match manifest.outputs.len() {
        0 => String::new(),
        1 => ", its file verified".into(),
        n => format!(", its {n} files verified"),
    }
}
