//! `fp8flow verify`: a finished run, or steps of its training, once more, and the bits of both held against each other.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fp8flow_flow::{Again, Class, Difference, Error, Event, Observer, Recorded, Registry, StageError};
use fp8flow_train::checkpoint::{MODEL, OPTIMIZER, RECIPE};
use fp8flow_train::{
    CHECKPOINTS, Checkpoints, DIGESTS, EVALUATIONS, METRICS, TELEMETRY, compare, digest_of, first_other,
};
use serde::Serialize;

use crate::Engine;
use crate::failure::OrFail as _;
use crate::train::{Task, first_other_tensor, parted};

/// What is done again.
#[derive(Clone, Debug, Default)]
pub struct What {
    /// One stage; all by default.
    pub stage: Option<String>,
    /// Only the steps after the first up to the second, of a training stage.
    pub window: Option<(u64, u64)>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// The run's id.
    pub run: String,
    /// The stages that were done again.
    pub stages: Vec<String>,
    /// The steps that were done again, where not all.
    pub window: Option<(u64, u64)>,
    /// Whether every bit is the same.
    pub same: bool,
    /// Where bits differ, the first first.
    pub differences: Vec<Difference>,
}

/// Does `what` of a run again; nothing of the run changes. `cancel` is the flag that `engine` hears.
pub fn verify(
    engine: &Engine,
    registry: &Registry,
    recorded: &Recorded,
    what: &What,
    observer: Arc<dyn Observer>,
    cancel: &Arc<AtomicBool>,
) -> Result<Verified, Error> {
    let (stages, differences) = if let Some(window) = what.window {
        let stage = training(recorded, what.stage.as_deref())?;
        let differences =
            Window { engine, registry, recorded, stage, steps: window }.verify(observer, cancel)?;
        (vec![stage.to_owned()], differences)
    } else {
        let all = || recorded.plan.stages.iter().map(|stage| stage.name.clone()).collect();
        let stages: Vec<String> = what.stage.clone().map_or_else(all, |stage| vec![stage]);
        let again = Again::new(recorded, registry, observer, Arc::clone(cancel))?;
        again.inputs_are_the_same(&stages.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut differences: Vec<Difference> = Vec::new();
        for stage in &stages {
            let found = again.verify(stage)?;
            differences
                .extend(found.into_iter().filter(|found| !differences.contains(found)).collect::<Vec<_>>());
        }
        (stages, differences)
    };
    let (run, window, same) = (recorded.record.id.clone(), what.window, differences.is_empty());
    Ok(Verified { run, stages, window, same, differences })
}

/// The training stage that is asked for, or the only one.
fn training<'a>(recorded: &'a Recorded, name: Option<&str>) -> Result<&'a str, Error> {
    let trains = recorded.plan.stages.iter().filter(|stage| Task::of(&stage.uses).is_some());
    let names: Vec<&str> = trains.map(|stage| stage.name.as_str()).collect();
    let refused = |why| Error::NotAgain { run: recorded.folder.clone(), class: Class::Invalid, why };
    match (name, &names[..]) {
        (_, []) => Err(refused("it trains nothing, so that it has no steps".into())),
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(refused(format!("it has several training stages; choose with --stage: {}", names.join(", "))))
        }
        (Some(name), _) => names.iter().find(|known| **known == name).copied().ok_or_else(|| {
            refused(format!("`{name}` is no training stage, and has no steps; there is {}", names.join(", ")))
        }),
    }
}

/// Some steps of a training stage, from the checkpoint before them.
struct Window<'a> {
    engine: &'a Engine,
    registry: &'a Registry,
    recorded: &'a Recorded,
    stage: &'a str,
    /// Steps done before, and after it.
    steps: (u64, u64),
}

impl Window<'_> {
    fn verify(
        &self,
        observer: Arc<dyn Observer>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Vec<Difference>, Error> {
        let (from, to) = self.steps;
        let then = self.recorded.folder.join(self.stage);
        let damage = self.look(&then).map_err(|error| self.failed(error))?;
        if !damage.is_empty() {
            return Ok(damage);
        }
        let until = Arc::new(Until {
            observer,
            to,
            cancel: Arc::clone(cancel),
            reached: AtomicBool::new(false),
            began: Instant::now(),
        });
        let again = Again::new(self.recorded, self.registry, until.clone(), Arc::clone(cancel))?;
        let redone = match again.redo(self.stage, |then, now| lay_out(then, now, from))? {
            Ok(redone) => redone,
            Err(damage) => return Ok(damage),
        };
        if !redone.is_finished() && !until.reached.load(Ordering::Relaxed) {
            let (run, why) = (
                self.recorded.folder.clone(),
                "stopped while steps were done again; nothing of that is kept",
            );
            return Err(Error::NotAgain { run, class: Class::Interrupted, why: why.into() });
        }
        self.held_against(&then, &redone.now).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: StageError) -> Error {
        let (run, stage) = (self.recorded.folder.clone(), self.stage.to_owned());
        if error.class == Class::Invalid {
            return Error::NotAgain { run, class: Class::Invalid, why: error.message };
        }
        Error::Stage { run, stage, error }
    }

    /// Fails if there is nothing to begin with; what it says of a checkpoint that is not what the run had is a difference.
    fn look(&self, then: &Path) -> Result<Vec<Difference>, StageError> {
        let (from, to) = self.steps;
        let Some(_) = digest_of(then, to).or_fail()? else {
            return Err(StageError::invalid(format!("there is no digest of step {to} in {DIGESTS}")));
        };
        if from == 0 {
            return Ok(Vec::new());
        }
        let checkpoints = Checkpoints::new(then.join(CHECKPOINTS), 1);
        let known = checkpoints.steps().or_fail()?;
        if !known.contains(&from) {
            let known: Vec<String> = known.iter().map(u64::to_string).collect();
            return Err(StageError::invalid(format!(
                "there is no checkpoint after step {from} to begin with; there are: 0 (the start), {}",
                known.join(", ")
            )));
        }
        let Some((line, names)) = digest_of(then, from).or_fail()? else {
            return Err(StageError::invalid(format!("there is no digest of step {from} in {DIGESTS}")));
        };
        let file =
            Path::new(CHECKPOINTS).join(checkpoints.path(from).file_name().unwrap_or_default()).join(MODEL);
        let difference = |tensor, what: String| Difference {
            stage: self.stage.to_owned(),
            file: Some(file.clone()),
            step: Some(from),
            tensor,
            what,
        };
        let pool = self.engine.cpu().pool;
        if let Some(tensor) = first_other(then.join(&file), &names, &line, pool).or_fail()? {
            let what = format!("step {from}: the checkpoint does not hold what the run had: `{tensor}`");
            return Ok(vec![difference(Some(tensor), what)]);
        }
        let damage = checkpoints.verify(from).err();
        Ok(damage
            .map(|what| difference(None, format!("step {from}: the checkpoint is damaged: {what}")))
            .into_iter()
            .collect())
    }

    fn held_against(&self, then: &Path, now: &Path) -> Result<Vec<Difference>, StageError> {
        let (_, to) = self.steps;
        let found = compare([then, now]).or_fail()?;
        let mut differences: Vec<Difference> =
            found.parting.iter().map(|parting| parted(self.stage, parting)).collect();
        if found.compared < to && differences.is_empty() {
            let what = format!("only {} steps could be compared", found.compared);
            differences.push(Difference::of_file(self.stage, Path::new(DIGESTS), what));
        }
        let [stored, made] = [then, now].map(|folder| Checkpoints::new(folder.join(CHECKPOINTS), 1).path(to));
        for name in [MODEL, OPTIMIZER, RECIPE] {
            if let Some(tensor) = first_other_tensor([stored.join(name), made.join(name)]) {
                let file = Path::new(CHECKPOINTS).join(stored.file_name().unwrap_or_default()).join(name);
                differences.push(Difference {
                    step: Some(to),
                    tensor: Some(tensor),
                    ..Difference::of_file(self.stage, &file, "other bytes")
                });
            }
        }
        Ok(differences)
    }
}

/// Puts what a run goes on from into `now`: the files of lines, and a link to the checkpoint after `from`.
fn lay_out(then: &Path, now: &Path, from: u64) -> Result<(), StageError> {
    if from == 0 {
        return Ok(());
    }
    for name in [METRICS, EVALUATIONS, TELEMETRY, DIGESTS] {
        let path = then.join(name);
        if path.exists() {
            fs::copy(&path, now.join(name)).map_err(|error| StageError::io(&path, error))?;
        }
    }
    let [stored, link] = [then, now].map(|folder| Checkpoints::new(folder.join(CHECKPOINTS), 1).path(from));
    let folder = now.join(CHECKPOINTS);
    fs::create_dir(&folder)
        .and_then(|()| std::os::unix::fs::symlink(&stored, &link))
        .map_err(|error| StageError::io(&link, error))
}

/// Passes events on, and asks the training to stop after a step.
struct Until {
    observer: Arc<dyn Observer>,
    to: u64,
    cancel: Arc<AtomicBool>,
    reached: AtomicBool,
    began: Instant,
}

impl Observer for Until {
    fn on(&self, event: &Event) {
        match event {
            Event::Metrics { values, .. } if values["step"] == self.to => {
                self.reached.store(true, Ordering::Relaxed);
                self.cancel.store(true, Ordering::Relaxed);
            }
            // It is stopped as it should be.
            Event::StageFailed { class: Class::Interrupted, stage, .. }
                if self.reached.load(Ordering::Relaxed) =>
            {
                let (stage, seconds) = (stage.clone(), self.began.elapsed().as_secs_f64());
                let summary = format!("up to step {}", self.to);
                return self.observer.on(&Event::StageFinished { stage, seconds, summary });
            }
            _ => {}
        }
        self.observer.on(event);
    }
}
