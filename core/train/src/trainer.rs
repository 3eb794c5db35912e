//! The training loop: micro-batches → gradient → AdamW → metrics → checkpoint, from wherever the last run stopped.

mod begin;
mod between_steps;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fp8flow_data::{MicroBatch, Order};
use fp8flow_model::Parameters;
use fp8flow_sdk::Counters;

use crate::checkpoint::Checkpoints;
use crate::config::due;
use crate::digests::Digests;
use crate::evaluation::{Evaluated, batch};
use crate::gradient_tree::GradientTree;
use crate::invariants::{self, Movement};
use crate::metrics::{Lines, StepMetrics};
use crate::optimizer::Optimizer;
use crate::proof::{self, Passes};
use crate::telemetry::{self, LayerTelemetry, Worst};
use crate::{Job, TrainConfig, TrainError, Watcher};

/// What a run came to.
#[derive(Debug)]
pub struct Trained {
    /// What every FP8 layer counted in this process.
    pub counters: Vec<(String, Counters)>,
    /// The passes of this process, which the counters were held against.
    pub passes: Passes,
    /// The worst casts of all watched steps, those before a restart included.
    pub worst: Worst,
    /// The last checkpoint: a folder that loads as a model.
    pub checkpoint: PathBuf,
    /// Every step's metrics, those before a restart included.
    pub metrics: Vec<StepMetrics>,
    /// Every evaluation, those before a restart included.
    pub evaluations: Vec<Evaluated>,
    /// Steps this process has done.
    pub steps_here: u64,
}

/// What a [`rehearse`]d run came to.
#[derive(Debug)]
pub struct Rehearsed {
    /// What every FP8 layer counted.
    pub counters: Vec<(String, Counters)>,
    /// The passes that the counters were held against.
    pub passes: Passes,
    /// Every step's metrics.
    pub metrics: Vec<StepMetrics>,
}

/// Trains until `config.steps` steps are done. `fresh` gives the weights of a run that starts.
///
/// Once `stop` is set the step at hand is finished, the state saved, and [`TrainError::Interrupted`] returned.
pub fn train(
    job: Job<'_>,
    fresh: impl FnOnce() -> Result<Parameters, TrainError>,
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Trained, TrainError> {
    let mut run = Run::begin(job, fresh, stop, watcher)?;
    run.expect_room()?;
    run.steps()?;
    let checkpoint = run.save_once()?;
    if run.done >= run.job.config.steps {
        run.evaluate()?;
    }
    if run.stopped() {
        return Err(TrainError::Interrupted { step: run.done });
    }
    // Once more: the last evaluation was to run in FP8 as well.
    let counters = run.prove()?;
    run.warn_unmoved();
    Ok(Trained {
        counters,
        passes: run.passes(),
        worst: run.telemetry.all,
        checkpoint,
        metrics: run.metrics.all,
        evaluations: run.evaluations.all,
        steps_here: run.done - run.started_at,
    })
}

/// The steps of [`train`] with their proof, and nothing kept at the end: for measuring what a step takes.
///
/// Once `stop` is set the step at hand is the last.
pub fn rehearse(
    job: Job<'_>,
    fresh: impl FnOnce() -> Result<Parameters, TrainError>,
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Rehearsed, TrainError> {
    let mut run = Run::begin(job, fresh, stop, watcher)?;
    run.steps()?;
    let counters = run.prove()?;
    Ok(Rehearsed { counters, passes: run.passes(), metrics: run.metrics.all })
}

/// A run in progress.
struct Run<'a> {
    job: Job<'a>,
    order: Order,
    checkpoints: Checkpoints,
    parameters: Parameters,
    optimizer: Optimizer,
    gradients: GradientTree,
    metrics: Lines<StepMetrics>,
    evaluations: Lines<Evaluated>,
    telemetry: Lines<LayerTelemetry, Worst>,
    digests: Digests,
    casts: telemetry::Observer,
    movement: Movement,
    /// Whether a micro-batch was seen to write every gradient.
    received: bool,
    started_at: u64,
    done: u64,
    saved: Option<(u64, PathBuf)>,
    stop: &'a AtomicBool,
    watcher: &'a mut dyn Watcher,
}

impl Run<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// All steps, with the evaluations and checkpoints between them and their proof; fewer where the run is stopped.
    fn steps(&mut self) -> Result<(), TrainError> {
        let TrainConfig { steps, checkpoint_every, evaluate_every, .. } = self.job.config;
        while self.done < steps {
            // Asked of the steps done, not of this process, so that an interruption loses no evaluation.
            if self.done == 0 || due(evaluate_every, self.done) {
                self.evaluate()?;
            }
            if self.stopped() {
                return Ok(());
            }
            self.step()?;
            if self.done == self.started_at + 1 {
                self.prove()?;
            }
            if due(checkpoint_every, self.done) {
                self.save_once()?;
            }
        }
        self.prove()?;
        Ok(())
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let step = self.done + 1;
        let _span = tracing::debug_span!("step", step).entered();
        let (device, config) = (self.job.device, &self.job.config);
        let watched = config.watches(step);
        self.job.decoder.telemetry = watched;
        if watched {
            self.casts.begin(self.job.decoder.counters()?);
        }
        let indices = self.order.step(self.done);
        let micros: Vec<MicroBatch> =
            indices.chunks(config.micro.max(1)).map(|chunk| MicroBatch::new(self.job.train, chunk)).collect();
        let targets = micros.iter().map(MicroBatch::target_count).sum::<usize>().max(1) as f64;
        let factor = (1.0 / targets) as f32;
        let mut loss = 0.0;
        self.gradients.clear();
        for micro in &micros {
            let (decoder, parameters) = (&mut self.job.decoder, &self.parameters);
            let received = &mut self.received;
            self.gradients.add(device, |gradients, accumulate| {
                if !*received && !accumulate {
                    invariants::poison(device, gradients);
                }
                let result =
                    decoder.train(device, parameters, batch(micro), factor, gradients, accumulate)?;
                if !*received && result.targets > 0 {
                    invariants::all_received(step, gradients)?;
                    *received = true;
                }
                loss += result.loss_sum / targets;
                Ok::<_, TrainError>(())
            })?;
        }
        self.job.decoder.telemetry = false;
        let gradients = self.gradients.total(device);
        let norm = Optimizer::norm(device, gradients);
        device.settle()?;
        let norm = match norm {
            Ok(norm) if loss.is_finite() => norm,
            found => return Err(self.not_finite(step, &micros, found.err())),
        };
        let lr = config.schedule.rate(step);
        let movement = &mut self.movement;
        self.optimizer.step(device, step, lr, norm, &mut self.parameters, gradients, movement)?;
        movement.verdict(step, self.parameters.specs())?;
        self.job.decoder.weights_changed(device, &self.parameters)?;
        self.done = step;
        device.settle()?;
        let digests = self.digests.of(&self.parameters, device.cpu().pool)?;

        let tokens = micros.iter().map(MicroBatch::tokens).sum::<usize>();
        let tokens_per_s = tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
        let (tokens, precision) = (tokens as u64, config.precision.clone());
        let line = StepMetrics { step, loss, lr, grad_norm: norm, tokens, tokens_per_s, precision };
        self.watcher.step(&line);
        self.digests.append(&line, &digests)?;
        self.metrics.append(line)?;
        if watched { self.report_casts() } else { Ok(()) }
    }

    fn report_casts(&mut self) -> Result<(), TrainError> {
        let layers = self.casts.lines(self.done, self.job.decoder.counters()?);
        self.watcher.telemetry(&layers);
        layers.into_iter().try_for_each(|line| self.telemetry.append(line))
    }

    /// What this process has run.
    fn passes(&self) -> Passes {
        let trained = (self.done - self.started_at) * self.job.config.micro_batches() as u64;
        let recomputed = if self.job.decoder.options().recompute { trained } else { 0 };
        Passes { trained, recomputed, evaluated: self.job.decoder.evaluations() }
    }

    /// Holds the counters against the plan.
    fn prove(&self) -> Result<Vec<(String, Counters)>, TrainError> {
        let counters = self.job.decoder.counters()?;
        proof::check(&self.job.decisions, &counters, self.passes())?;
        Ok(counters)
    }

    /// Says which parameters no step of this process could move.
    fn warn_unmoved(&mut self) {
        let steps = self.done - self.started_at;
        if steps == 0 {
            return;
        }
        for unmoved in self.movement.unmoved(self.parameters.specs()) {
            self.watcher.warn(&format!("not moved in {steps} steps: {unmoved}"));
        }
    }

    /// Finds the first layer whose output is infinite or NaN; else `parameter`, whose gradient is.
    fn not_finite(&mut self, step: u64, micros: &[MicroBatch], parameter: Option<String>) -> TrainError {
        let (device, decoder) = (self.job.device, &mut self.job.decoder);
        for micro in micros {
            match decoder.first_non_finite(device, &self.parameters, batch(micro)) {
                Ok(Some(place)) => return TrainError::NotFinite { step, what: "the loss", place },
                Ok(None) => {}
                Err(error) => return error.into(),
            }
        }
        match parameter {
            Some(name) => {
                TrainError::NotFinite { step, what: "the gradient", place: format!("that of `{name}`") }
            }
            None => TrainError::NotFinite { step, what: "the loss", place: "the logits".into() },
        }
    }
}
