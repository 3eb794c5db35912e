//! Training steps on a card, by the very loop that a run uses, of Llama-3's shapes with random weights.
//!
//! What a step is, and how FP8 is proven, is as on the CPU: see [`crate::train()`]. The loop waits for the card before it
//! takes the time of a step. Weights are drawn by the CPU while the card copies them. Masters, moments and gradients are f32, 16
//! bytes a parameter: where the whole model does not fit the card, blocks are computed again for backward, and where that
//! is not enough there are fewer of them, which the line says.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_data::TokenSet;
use fp8flow_model::{initialise_on, parameter_count};
use fp8flow_tensor::{Arena, Card, DType};
use fp8flow_train::{Evaluated, Job, LayerTelemetry, StepMetrics, TrainError, Watcher, rehearse};

use super::fit::{Fitting, fit};
use super::line::{CardLine, CardTrain, Extent, Heads};
use super::{CardBench, Name, Sizes, Work};
use crate::line::Line;
use crate::model::{Size, flops_per_token};
use crate::sample::median;
use crate::train as training;
use crate::{BenchError, Fp8};

/// What is trained, and how many steps count; what is not said is chosen to fit.
#[derive(Clone, Copy, Debug)]
pub struct CardTraining {
    /// Steps that count.
    pub steps: usize,
    /// Blocks.
    pub blocks: Option<usize>,
    /// Sequences of a step; as many as make [`TOKENS`] where it is not said.
    pub batch: Option<usize>,
    /// Type of the activations.
    pub dtype: DType,
    /// Whether a block's activations are computed again for backward.
    pub recompute: Option<bool>,
}

/// Tokens of a step, where its sequences are not said; and of small ones.
pub const TOKENS: [usize; 2] = [8192, 64];

/// Models and sequences where nobody asks for others.
const USUAL: ([Size; 2], [usize; 2]) = ([Size::Llama1B, Size::Llama8B], [2048, 8192]);
const SMALL: ([Size; 1], [usize; 1]) = ([Size::Small], [32]);

/// Measures training steps of each of `models` (the usual ones if there is none) in sequences of so many tokens, or of
/// the usual ones; `cancel` ends it early.
pub fn train(
    bench: &CardBench,
    models: &[Size],
    sequence: Option<usize>,
    asked: &CardTraining,
    fp8: Option<&Fp8>,
    cancel: &AtomicBool,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    if let Some(fp8) = fp8 {
        training::prove(fp8)?;
    }
    let (usual, sequences): (&[Size], &[usize]) = match bench.sizes {
        Sizes::Usual => (&USUAL.0, &USUAL.1),
        Sizes::Small => (&SMALL.0, &SMALL.1),
    };
    for &size in if models.is_empty() { usual } else { models } {
        for &sequence in sequence.as_ref().map_or(sequences, std::slice::from_ref) {
            match fit(bench, (size, sequence), asked, fp8)? {
                Ok(fitting) => show(steps(bench, size, fitting, fp8, cancel)?),
                Err(why) => {
                    let config = size.config(1, sequence)?;
                    let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
                    let batch = asked.batch.unwrap_or(1);
                    let extent = Extent::Heads(Heads { batch, sequence, heads, kv_heads, head_dim });
                    show(CardBench::left_out(Name { what: size.name(), scales: None, extent }, why));
                }
            }
        }
    }
    Ok(())
}

fn steps(
    bench: &CardBench,
    size: Size,
    Fitting { what, config, plan, planned }: Fitting,
    fp8: Option<&Fp8>,
    cancel: &AtomicBool,
) -> Result<Line, BenchError> {
    let device = &*bench.device;
    let (before, _) = bench.card.memory_info()?;
    let decoder = training::decoder(&config, &what, &plan, fp8, None, &mut Arena::of(device))?;
    let examples = what.examples(config.vocab_size);
    let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
    let stop = AtomicBool::new(false);
    let mut watch =
        Watch { card: &bench.card, least: before, cancel, stop: &stop, last: what.steps as u64 + 1 };
    let job = Job {
        config: what.settings(),
        device,
        decoder,
        decisions: plan.decisions(),
        recipe_state: None,
        train: &examples,
        held_out: &TokenSet::new(config.vocab_size),
        folder: folder.path(),
    };
    let fresh = || initialise_on(&config, 0, device).map_err(TrainError::from);
    let rehearsed = rehearse(job, fresh, &stop, &mut watch)?;
    let measured: Vec<&StepMetrics> = rehearsed.metrics.iter().skip(1).collect();
    if measured.len() < what.steps {
        return Err(BenchError::Interrupted);
    }
    let tokens_per_s = median(measured.iter().map(|step| step.tokens_per_s).collect());
    let flops_per_token = flops_per_token(&config, what.sequence);
    let rate = tokens_per_s * flops_per_token as f64;
    // The share is of FP8's peak, whatever a layer runs in.
    let [fp8_peak_share, ceiling_share] = bench.shares(Work::Fp8(flops_per_token as f64), rate);
    Ok(Line::Card(CardLine::Train(Box::new(CardTrain {
        what: "train",
        model: size.name(),
        backend: fp8.map(Fp8::backend),
        recipe: fp8.map(Fp8::recipe),
        precision: if what.dtype == DType::F32 { "f32" } else { "bf16" },
        recompute: if what.recompute { "block" } else { "none" },
        layers: what.blocks,
        of_layers: size.blocks(),
        batch: what.batch,
        sequence: what.sequence,
        steps: what.steps,
        fp8_layers: plan.fp8().count(),
        parameters: parameter_count(&config),
        tokens_per_s,
        step_ms: 1e3 * (what.batch * what.sequence) as f64 / tokens_per_s,
        flops_per_token,
        tflops: rate / 1e12,
        fp8_peak_share,
        ceiling_share,
        used_gb: before.saturating_sub(watch.least) as f64 / 1e9,
        planned_gb: planned as f64 / 1e9,
        loss: measured.last().map_or(0.0, |step| step.loss),
    }))))
}

/// Looks at the card's memory after every step, and ends the run where it is measured or was cancelled.
struct Watch<'a> {
    card: &'a Card,
    /// Fewest bytes that were free.
    least: usize,
    cancel: &'a AtomicBool,
    stop: &'a AtomicBool,
    last: u64,
}

impl Watcher for Watch<'_> {
    fn step(&mut self, metrics: &StepMetrics) {
        if let Ok((free, _)) = self.card.memory_info() {
            self.least = self.least.min(free);
        }
        if metrics.step == self.last || self.cancel.load(Ordering::Relaxed) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn resumed(&mut self, _: u64) {}
    fn telemetry(&mut self, _: &[LayerTelemetry]) {}
    fn evaluated(&mut self, _: &Evaluated) {}
    fn saved(&mut self, _: u64, _: &Path) {}
    fn warn(&mut self, _: &str) {}
}
