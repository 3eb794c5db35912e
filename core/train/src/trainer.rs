//! The training loop: micro-batches → gradient → AdamW → metrics → checkpoint, from wherever the last run stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fp8flow_data::{MicroBatch, Order, TokenSet};
use fp8flow_model::{Decoder, ModelConfig, Parameters, parameter_specs};
use fp8flow_sdk::{Counters, Decision};
use fp8flow_tensor::Device;

use crate::checkpoint::{Checkpoints, RecipeState, Snapshot, State};
use crate::digests::Digests;
use crate::error::few;
use crate::evaluation::{Evaluated, batch, evaluate, samples};
use crate::gradient_tree::{Accumulation, GradientTree};
use crate::invariants::{self, Movement};
use crate::metrics::{Lines, StepMetrics};
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::proof::{self, Passes};
use crate::telemetry::{self, LayerTelemetry, Worst};
use crate::{Schedule, TrainError};

/// What a run does, apart from the model and the data.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences of a micro-batch.
    pub micro: usize,
    /// Sequences of a step; a multiple of `micro`.
    pub per_step: usize,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Seeds the order.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate.
    pub schedule: Schedule,
    /// How micro-batches are combined.
    pub accumulation: Accumulation,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    pub keep: usize,
    /// Steps between evaluations of the held-out examples; 0: only before and after.
    pub evaluate_every: u64,
    /// Held-out examples that are answered in every evaluation.
    pub samples: usize,
    /// Steps between those whose casts to FP8 are watched, beside the first and the last; 0: no others.
    pub telemetry_every: u64,
    /// What the metrics call the precision, where it is not the one that was asked for.
    pub precision: Option<String>,
    /// What every bit of the run depends on, as text; a checkpoint of another identity is refused.
    pub identity: String,
}

impl TrainConfig {
    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> usize {
        self.per_step.div_ceil(self.micro.max(1))
    }

    /// Copies of the gradient that are held at once.
    pub fn gradients(&self) -> usize {
        self.accumulation.buffers(self.micro_batches())
    }

    /// Bytes of masters, two moments and the gradients of so many parameters: f32 all of them.
    pub fn state_bytes(&self, parameters: u64) -> u64 {
        parameters.saturating_mul(4 * (3 + self.gradients() as u64))
    }

    /// Whether the casts of `step`, counted from 1, are watched. It costs time and changes no bit.
    fn watches(&self, step: u64) -> bool {
        step == 1 || step == self.steps || due(self.telemetry_every, step)
    }
}

/// Whether what happens `every` so many steps happens at `step`; 0: never.
fn due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// What to train, on what, where.
pub struct Job<'a> {
    /// Settings.
    pub config: TrainConfig,
    /// Runs the operations.
    pub device: &'a dyn Device,
    /// The model, without weights.
    pub decoder: Decoder,
    /// The decision for every layer, which the counters are held against.
    pub decisions: Vec<(String, Decision)>,
    /// What the recipe of a fresh run starts from, if not from its own beginning.
    pub recipe_state: Option<RecipeState>,
    /// Examples to learn from.
    pub train: &'a TokenSet,
    /// Examples to evaluate on; may be empty.
    pub held_out: &'a TokenSet,
    /// The run's own folder: metrics, telemetry and checkpoints.
    pub folder: &'a Path,
}

/// Hears what happens.
pub trait Watcher {
    /// The run goes on after `step` steps, from a checkpoint.
    fn resumed(&mut self, step: u64);
    /// A step is done.
    fn step(&mut self, metrics: &StepMetrics);
    /// The casts of a step were watched; one line a layer.
    fn telemetry(&mut self, layers: &[LayerTelemetry]);
    /// The held-out examples were evaluated.
    fn evaluated(&mut self, evaluated: &Evaluated);
    /// A checkpoint was saved.
    fn saved(&mut self, step: u64, path: &Path);
    /// Something a user should know.
    fn warn(&mut self, message: &str);
}

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

/// Folder of the checkpoints in a run's own folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// The metrics in a run's own folder.
pub const METRICS: &str = "metrics.jsonl";
/// The evaluations in a run's own folder.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// What casts to FP8 did in the watched steps, in a run's own folder.
pub const TELEMETRY: &str = "telemetry.jsonl";

/// Tokens of the largest micro-batch that `micro` examples of a set can make.
pub fn largest_micro_batch(set: &TokenSet, micro: usize) -> usize {
    let mut lengths: Vec<usize> = set.examples().map(|example| example.ids.len()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.iter().take(micro).sum()
}

/// Fails unless every example fits the model.
pub fn check_fit(model: &ModelConfig, set: &TokenSet) -> Result<(), TrainError> {
    if set.vocabulary() > model.vocab_size {
        return Err(TrainError::Vocabulary { tokenizer: set.vocabulary(), model: model.vocab_size });
    }
    let tokens = set.longest();
    if tokens > model.max_positions {
        return Err(TrainError::TooLong { tokens, context: model.max_positions });
    }
    Ok(())
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

impl<'a> Run<'a> {
    /// From the newest checkpoint that verifies, or from the start.
    fn begin(
        mut job: Job<'a>,
        fresh: impl FnOnce() -> Result<Parameters, TrainError>,
        stop: &'a AtomicBool,
        watcher: &'a mut dyn Watcher,
    ) -> Result<Self, TrainError> {
        let config = &job.config;
        check_fit(job.decoder.config(), job.train)?;
        check_fit(job.decoder.config(), job.held_out)?;
        let order = Order::new(job.train.len(), config.per_step, config.seed, config.shuffle)?;
        let checkpoints = Checkpoints::new(job.folder.join(CHECKPOINTS), config.keep);
        checkpoints.prepare()?;
        let newest = checkpoints.newest(|path, reason| {
            watcher.warn(&format!("{}: not used: {reason}", path.display()));
        })?;

        let specs = parameter_specs(job.decoder.config());
        let device = job.device;
        let mut optimizer = Optimizer::new(config.optimizer, device, &specs)?;
        let (parameters, done) = if let Some(checkpoint) = &newest {
            checkpoint.expect(&config.identity)?;
            let mut parameters = Parameters::zeros_on(device, &specs)?;
            checkpoint.load(&mut parameters, [&mut optimizer.m, &mut optimizer.v], &mut job.decoder)?;
            watcher.resumed(checkpoint.state.step);
            (parameters, checkpoint.state.step)
        } else {
            if let Some(state) = &job.recipe_state {
                state.restore(&mut job.decoder)?;
            }
            (fresh()?.moved_to(device)?, 0)
        };
        invariants::all_there_once(job.decoder.config(), [&parameters, &optimizer.m, &optimizer.v])?;
        job.decoder.weights_changed(job.device, &parameters)?;
        let digests = Digests::open(job.folder, done, &parameters, job.device.cpu().pool)?;
        Ok(Self {
            order,
            checkpoints,
            parameters,
            digests,
            optimizer,
            gradients: GradientTree::new(config.accumulation, config.micro_batches(), device, &specs)?,
            metrics: Lines::open(&job.folder.join(METRICS), done)?,
            evaluations: Lines::open(&job.folder.join(EVALUATIONS), done)?,
            telemetry: Lines::open(&job.folder.join(TELEMETRY), done)?,
            casts: telemetry::Observer::default(),
            movement: Movement::new(specs.len()),
            received: false,
            started_at: done,
            done,
            saved: newest.map(|checkpoint| (done, checkpoint.path)),
            job,
            stop,
            watcher,
        })
    }

    /// Fails unless the disk has room for the checkpoints of the steps that are left.
    fn expect_room(&self) -> Result<(), TrainError> {
        let TrainConfig { steps, checkpoint_every, .. } = self.job.config;
        if self.done >= steps {
            return Ok(());
        }
        self.checkpoints.expect_room(&self.parameters, checkpoint_every > 0)
    }

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
        if self.done == self.started_at {
            return;
        }
        let unmoved = self.movement.unmoved(self.parameters.specs());
        for (pulled, why) in [
            (false, "every gradient was zero"),
            (true, "every update was below the resolution of f32; raise the learning rate"),
        ] {
            let names = unmoved.iter().filter(|unmoved| unmoved.pulled == pulled);
            let names: Vec<String> = names.map(|unmoved| format!("`{}`", unmoved.parameter)).collect();
            if !names.is_empty() {
                let steps = self.done - self.started_at;
                let names = few(names.into_iter(), ", ");
                self.watcher.warn(&format!("not moved in {steps} steps: {names}: {why}"));
            }
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

    /// Evaluates the held-out examples, if there are any, unless this was done after this very step.
    fn evaluate(&mut self) -> Result<(), TrainError> {
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
    fn save_once(&mut self) -> Result<PathBuf, TrainError> {
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
