//! What is done between steps, at most once after each: evaluations and checkpoints.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::Run;
use crate::checkpoint::{Snapshot, State};
use crate::evaluation::{Evaluated, evaluate, samples};
use crate::optimizer::Optimizer;
use crate::{Job, TrainError};

impl Run<'_> {
    /// Evaluates the held-out examples, if there are any, unless this was done after this very step.
    pub(super) fn evaluate(&mut self) -> Result<(), TrainError> {
        let known = self.evaluations.all.last().is_some_and(|line| line.step == self.done);
        if self.job.held_out.is_empty() || known {
            return Ok(());
        }
        let Job { config, device, decoder, held_out, .. } = &mut self.job;
        // The casts of the weights are made here and used again by the step that follows.
        decoder.telemetry = config.watches(self.done + 1);
        let proceed = || !self.stop.load(Ordering::Relaxed);
        let (micro, most) = (config.micro, config.samples);
        let Some(evaluation) = evaluate(*device, decoder, &self.parameters, held_out, micro, |_| proceed())?
        else {
            return Ok(());
        };
        let Some(samples) = samples(*device, decoder, &self.parameters, held_out, most, proceed)? else {
            return Ok(());
        };
        decoder.telemetry = false;
        let evaluated = Evaluated { step: self.done, evaluation, samples };
        self.watcher.evaluated(&evaluated);
        self.evaluations.append(evaluated)
    }

    /// Saves the state, unless it is saved; returns the checkpoint.
    pub(super) fn save_once(&mut self) -> Result<PathBuf, TrainError> {
        if let Some((step, path)) = &self.saved
            && *step == self.done
        {
            return Ok(path.clone());
        }
        if let Err(name) = Optimizer::norm(self.job.device, &self.parameters) {
            let (step, what) = (self.done, "a weight");
            return Err(TrainError::NotFinite { step, what, place: format!("`{name}`") });
        }
        self.metrics.sync()?;
        self.evaluations.sync()?;
        self.telemetry.sync()?;
        self.digests.sync()?;
        let decoder = &self.job.decoder;
        let path = self.checkpoints.save(&Snapshot {
            state: State::new(self.done, &self.job.config.identity),
            config: &decoder.config().raw,
            parameters: &self.parameters,
            moments: [&self.optimizer.m, &self.optimizer.v],
            recipe: decoder.recipe_state()?,
        })?;
        self.watcher.saved(self.done, &path);
        self.saved = Some((self.done, path.clone()));
        Ok(path)
    }
}
