//! What a run does: settings, and what follows from them alone.

use crate::{Accumulation, OptimizerConfig, Schedule};

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
    pub(crate) fn watches(&self, step: u64) -> bool {
        step == 1 || step == self.steps || due(self.telemetry_every, step)
    }
}

/// Whether what happens `every` so many steps happens at `step`; 0: never.
pub(crate) fn due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
