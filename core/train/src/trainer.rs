//! The training loop: micro-batches → gradient → AdamW → metrics → checkpoint, from wherever the last run stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fp8flow_data::{MicroBatch, Order, TokenSet};
use fp8flow_model::{Decoder, ModelConfig, Parameters, parameter_specs};
use fp8flow_sdk::{Counters, Decision};
use fp8flow_tensor::Device;

use crate::checkpoint::{Checkpoints, Snapshot, State};
use crate::evaluation::{Evaluated, batch, evaluate, samples};
use crate::gradient_tree::{Accumulation, GradientTree};
use crate::metrics::{Lines, StepMetrics};
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::{Schedule, TrainError, proof};

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
    /// What every bit of the run depends on, as text; a checkpoint of another identity is refused.
    pub identity: String,
}

impl TrainConfig {
    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> usize {
        self.per_step.div_ceil(self.micro.max(1))
    }
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
    /// Examples to learn from.
    pub train: &'a TokenSet,
    /// Examples to evaluate on; may be empty.
    pub held_out: &'a TokenSet,
    /// The run's own folder: metrics and checkpoints.
    pub folder: &'a Path,
}

/// Hears what happens.
pub trait Watcher {
    /// The run goes on after `step` steps, from a checkpoint.
    fn resumed(&mut self, step: u64);
    /// A step is done.
    fn step(&mut self, metrics: &StepMetrics);
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
    let started_at = run.done;
    let TrainConfig { steps, checkpoint_every, evaluate_every, .. } = run.job.config;
    let due = |every: u64, done: u64| every > 0 && done.is_multiple_of(every);
    while run.done < steps {
        // Asked of the steps done, not of this process, so that an interruption loses no evaluation.
        if run.done == 0 || due(evaluate_every, run.done) {
            run.evaluate()?;
        }
        if run.stopped() {
            run.save_once()?;
            return Err(TrainError::Interrupted { step: run.done });
        }
        run.step()?;
        if run.done == started_at + 1 {
            run.prove(1)?;
        }
        if due(checkpoint_every, run.done) {
            run.save_once()?;
        }
    }
    run.prove(run.done - started_at)?;
    let checkpoint = run.save_once()?;
    run.evaluate()?;
    if run.stopped() {
        return Err(TrainError::Interrupted { step: run.done });
    }
    Ok(Trained {
        counters: run.job.decoder.counters()?,
        checkpoint,
        metrics: run.metrics.all,
        evaluations: run.evaluations.all,
        steps_here: run.done - started_at,
    })
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
        let mut optimizer = Optimizer::new(config.optimizer, &specs);
        let (parameters, done) = match &newest {
            Some(checkpoint) => {
                checkpoint.expect(&config.identity)?;
                let mut parameters = Parameters::zeros(&specs);
                let state = checkpoint.load(&mut parameters, [&mut optimizer.m, &mut optimizer.v])?;
                job.decoder.restore_recipe(&state)?;
                watcher.resumed(checkpoint.state.step);
                (parameters, checkpoint.state.step)
            }
            None => (fresh()?, 0),
        };
        job.decoder.weights_changed(job.device, &parameters)?;
        Ok(Self {
            order,
            checkpoints,
            parameters,
            optimizer,
            gradients: GradientTree::new(config.accumulation, config.micro_batches(), &specs),
            metrics: Lines::open(&job.folder.join(METRICS), done)?,
            evaluations: Lines::open(&job.folder.join(EVALUATIONS), done)?,
            done,
            saved: newest.map(|checkpoint| (done, checkpoint.path)),
            job,
            stop,
            watcher,
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let step = self.done + 1;
        let _span = tracing::debug_span!("step", step).entered();
        let (device, config) = (self.job.device, &self.job.config);
        // Watching casts costs time and changes no bit: the first and the last step tell enough.
        self.job.decoder.telemetry = step == 1 || step == config.steps;
        let indices = self.order.step(self.done);
        let micros: Vec<MicroBatch> =
            indices.chunks(config.micro.max(1)).map(|chunk| MicroBatch::new(self.job.train, chunk)).collect();
        let targets = micros.iter().map(MicroBatch::target_count).sum::<usize>().max(1) as f64;
        let factor = (1.0 / targets) as f32;
        let mut loss = 0.0;
        self.gradients.clear();
        for micro in &micros {
            let (decoder, parameters) = (&mut self.job.decoder, &self.parameters);
            self.gradients.add(device, |gradients, accumulate| {
                let result =
                    decoder.train(device, parameters, batch(micro), factor, gradients, accumulate)?;
                loss += result.loss_sum / targets;
                Ok::<_, TrainError>(())
            })?;
        }
        let gradients = self.gradients.total(device);
        let norm = match Optimizer::norm(device, gradients) {
            Ok(norm) if loss.is_finite() => norm,
            found => return Err(self.not_finite(step, &micros, found.err())),
        };
        let lr = config.schedule.rate(step);
        self.optimizer.step(device, step, lr, norm, &mut self.parameters, gradients);
        self.job.decoder.weights_changed(device, &self.parameters)?;
        self.done = step;

        let tokens = micros.iter().map(MicroBatch::tokens).sum::<usize>();
        let tokens_per_s = tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
        let line = StepMetrics { step, loss, lr, grad_norm: norm, tokens: tokens as u64, tokens_per_s };
        self.watcher.step(&line);
        self.metrics.append(line)
    }

    /// Holds the counters against the plan after `steps` steps of this process.
    fn prove(&self, steps: u64) -> Result<(), TrainError> {
        let micro_batches = steps * self.job.config.micro_batches() as u64;
        proof::check(&self.job.decisions, &self.job.decoder.counters()?, micro_batches)
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
        let proceed = |_| !self.stop.load(Ordering::Relaxed);
        let Some(evaluation) = evaluate(*device, decoder, &self.parameters, held_out, config.micro, proceed)?
        else {
            return Ok(());
        };
        let samples = samples(*device, decoder, &self.parameters, held_out, config.samples)?;
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
