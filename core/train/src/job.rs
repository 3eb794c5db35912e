//! What training is given, who hears of it, and where it writes.

use std::path::Path;

use fp8flow_data::TokenSet;
use fp8flow_model::{Decoder, ModelConfig};
use fp8flow_sdk::Decision;
use fp8flow_tensor::Device;

use crate::checkpoint::RecipeState;
use crate::{Evaluated, LayerTelemetry, StepMetrics, TrainConfig, TrainError};

/// Folder of the checkpoints in a run's own folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// The metrics in a run's own folder.
pub const METRICS: &str = "metrics.jsonl";
/// The evaluations in a run's own folder.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// What casts to FP8 did in the watched steps, in a run's own folder.
pub const TELEMETRY: &str = "telemetry.jsonl";

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
