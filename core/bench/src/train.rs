//! Training steps, by the very loop that a run uses, on random tokens.
//!
//! A step is what `train.sft` counts as one: from the tokens to the updated weights and the metrics. The first step warms
//! up and does not count. The loop is told of two steps more than are measured and stopped before the last, because the
//! last step of a run watches its casts, and in a run of a few steps that would show. Nothing is saved.
//!
//! FP8 is proven as in a run: the recipe is challenged, and what every layer has counted is held against the plan. The
//! FMA peak is sampled after every step.
//!
//! With [`TrainBench::parts`] the same steps are taken apart: see `parts`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_data::TokenSet;
use fp8flow_host::machine::Memory;
use fp8flow_kernels::Cpu;
use fp8flow_kernels::philox::Philox;
use fp8flow_model::{
    Decoder, DecoderOptions, Fp8Layers, ModelConfig, initialise, linear_layers, parameter_count,
};
use fp8flow_stages::{FilterRule, LayerPlan, Menu, Offer, TrainingMemory};
use fp8flow_tensor::{Arena, DType, Device};
use fp8flow_testkit::challenge::challenge;
use fp8flow_train::{
    Accumulation, Decay, Decayed, Evaluated, Job, LayerTelemetry, OptimizerConfig, Schedule, StepMetrics,
    TrainConfig, TrainError, Watcher, rehearse,
};

use crate::fp8::Fp8;
use crate::limits::{FmaPeak, Limit as _};
use crate::line::{Line, TrainLine};
use crate::model::{VOCABULARY, flops_per_token, model};
use crate::parts::Parts;
use crate::sample::{beside, median, share};
use crate::{Bench, BenchError, room};

/// What is trained, and how many steps count.
#[derive(Clone, Copy, Debug)]
pub struct TrainBench {
    /// Steps that count.
    pub steps: usize,
    /// Blocks of the model.
    pub blocks: usize,
    /// Sequences of a step, which is one micro-batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Type of the activations: bf16 or f32.
    pub dtype: DType,
    /// Whether a block's activations are computed again for backward.
    pub recompute: bool,
    /// Whether the parts of a step are timed too.
    pub parts: bool,
}

/// Measures training steps; `cancel` ends it early.
pub fn train(
    bench: &Bench<'_>,
    what: &TrainBench,
    fp8: Option<&Fp8>,
    cancel: &AtomicBool,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let device = bench.engine.device();
    let mut peak = FmaPeak::new(bench.cpu());
    bench.limit(&mut peak, show);
    let mut parts = what.parts.then(|| Parts::new(bench.cpu()));
    if let Some(parts) = &mut parts {
        bench.limit(parts.copy(), show);
    }
    let config = model(what.blocks, what.sequence)?;
    let settings = what.settings();
    let plan = layers(&config, what, fp8)?;
    if let Some(fp8) = fp8 {
        prove(fp8)?;
    }
    let examples = what.examples(VOCABULARY);
    let measured = decoder(&config, what, &plan, fp8, None, &mut Arena::measure_of(&*device))?;
    let planned = TrainingMemory::of(&settings, &measured, &*device).with_examples(&[&examples]);
    room::check(planned.peak())?;
    let decoder = decoder(&config, what, &plan, fp8, parts.as_ref(), &mut Arena::of(&*device))?;
    let fp8_layers = plan.fp8().count();

    let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
    let stop = AtomicBool::new(false);
    let untimed = &*device;
    let timed = parts.as_ref().map(|parts| parts.device(untimed));
    let device: &dyn Device = timed.as_ref().map_or(untimed, |timed| timed);
    let last = what.steps as u64 + 1;
    let mut watch = Watch { peak, peaks: Vec::new(), parts, cancel, stop: &stop, last };
    let job = Job {
        config: settings,
        device,
        decoder,
        decisions: plan.decisions(),
        recipe_state: None,
        train: &examples,
        held_out: &TokenSet::new(VOCABULARY),
        folder: folder.path(),
    };
    let rehearsed = rehearse(job, || Ok(initialise(&config, 0, device.cpu().pool)), &stop, &mut watch)?;
    let measured: Vec<&StepMetrics> = rehearsed.metrics.iter().skip(1).collect();
    if measured.len() < what.steps {
        return Err(BenchError::Interrupted);
    }
    let tokens_per_s = median(measured.iter().map(|step| step.tokens_per_s).collect());
    let flops_per_token = flops_per_token(&config, what.sequence);
    let gflops = tokens_per_s * flops_per_token as f64 / 1e9;
    let peak_gflops = median(watch.peaks);
    let extra = watch.parts.as_ref().map_or(0, Parts::bytes);
    let Cpu { isa, pool } = bench.cpu();
    show(Line::Train(Box::new(TrainLine {
        what: "train",
        backend: fp8.map(Fp8::backend),
        recipe: fp8.map(Fp8::recipe),
        precision: if what.dtype == DType::F32 { "f32" } else { "bf16" },
        recompute: if what.recompute { "block" } else { "none" },
        layers: what.blocks,
        batch: what.batch,
        sequence: what.sequence,
        threads: pool.threads(),
        isa: isa.name(),
        steps: what.steps,
        fp8_layers,
        parameters: parameter_count(&config),
        tokens_per_s,
        step_ms: 1e3 * (what.batch * what.sequence) as f64 / tokens_per_s,
        peak_gb: Memory::peak().map(|bytes| bytes.saturating_sub(extra) as f64 / 1e9),
        planned_gb: planned.peak() as f64 / 1e9,
        flops_per_token,
        peak_share: share(gflops, peak_gflops),
        loss: measured.last().map_or(0.0, |step| step.loss),
    })));
    if let Some(parts) = &watch.parts {
        parts.lines(peak_gflops).into_iter().for_each(|part| show(Line::Part(part)));
    }
    Ok(())
}

impl TrainBench {
    /// AdamW with PyTorch's defaults, as the peer trains.
    pub(crate) fn settings(&self) -> TrainConfig {
        let steps = self.steps as u64 + 2;
        TrainConfig {
            steps,
            micro: self.batch,
            per_step: self.batch,
            shuffle: false,
            seed: 0,
            optimizer: OptimizerConfig {
                betas: [0.9, 0.999],
                eps: 1e-8,
                weight_decay: 0.01,
                decayed: Decayed::All,
                clip: 1.0,
            },
            schedule: Schedule { peak: 1e-4, warmup: 0, steps, decay: Decay::Constant },
            accumulation: Accumulation::Tree,
            checkpoint_every: 0,
            keep: 1,
            evaluate_every: 0,
            samples: 0,
            telemetry_every: 0,
            precision: None,
            identity: String::new(),
        }
    }

    fn options(&self) -> DecoderOptions {
        DecoderOptions { dtype: self.dtype, recompute: self.recompute, tokens: self.batch * self.sequence }
    }

    /// New random tokens for every step, each to be predicted.
    pub(crate) fn examples(&self, vocabulary: usize) -> TokenSet {
        let philox = Philox::new(0, "bench");
        let mut set = TokenSet::new(vocabulary);
        for example in 0..(self.batch * (self.steps + 1)) as u64 {
            let token = |index| philox.below(example, index, vocabulary as u64) as u32;
            let ids: Vec<u32> = (0..self.sequence as u64).map(token).collect();
            let labels: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            set.push(&ids, &labels);
        }
        set
    }
}

/// The decision for every layer, as `layers.filter` makes it by default.
pub(crate) fn layers(
    config: &ModelConfig,
    what: &TrainBench,
    fp8: Option<&Fp8>,
) -> Result<LayerPlan, BenchError> {
    let Some(fp8) = fp8 else { return Ok(LayerPlan::default()) };
    let recipe = fp8.configured()?;
    let facts = linear_layers(config, Some(what.batch * what.sequence));
    let menu = Menu::new(fp8.choice().clone(), recipe);
    let rule = FilterRule { skip: vec!["lm_head".into()], multiple_of: 16, ..FilterRule::default() };
    Ok(LayerPlan::decide(facts, &rule, Offer::Recipes(&menu)))
}

/// The recipe shows the rounding errors that only FP8 makes.
pub(crate) fn prove(fp8: &Fp8) -> Result<(), BenchError> {
    let not_fp8 = |why: String| BenchError::NotFp8 { recipe: fp8.recipe(), why };
    let evidence = challenge(fp8.configured()?).map_err(|failure| not_fp8(failure.to_string()))?;
    evidence.verdict().map_err(|objection| not_fp8(objection.to_string()))
}

/// The model in the memory of `arena`; with `parts`, its recipe is timed.
pub(crate) fn decoder(
    config: &ModelConfig,
    what: &TrainBench,
    plan: &LayerPlan,
    fp8: Option<&Fp8>,
    parts: Option<&Parts<'_>>,
    arena: &mut Arena,
) -> Result<Decoder, BenchError> {
    let fp8 = fp8.filter(|_| plan.fp8().next().is_some());
    let recipe = fp8.map(Fp8::configured).transpose()?;
    let recipe = match parts {
        Some(parts) => recipe.map(|recipe| parts.recipe(recipe)),
        None => recipe,
    };
    let fp8 = recipe.map(|recipe| Fp8Layers { recipe, layers: plan.decided() });
    Ok(Decoder::new(config, what.options(), fp8, arena).map_err(TrainError::from)?)
}

/// Samples the limits after every step, and ends the run where it is measured or was cancelled.
struct Watch<'a> {
    peak: FmaPeak<'a>,
    peaks: Vec<f64>,
    parts: Option<Parts<'a>>,
    cancel: &'a AtomicBool,
    stop: &'a AtomicBool,
    last: u64,
}

impl Watcher for Watch<'_> {
    fn step(&mut self, metrics: &StepMetrics) {
        let seconds = metrics.tokens as f64 / metrics.tokens_per_s;
        if let Some(parts) = &mut self.parts {
            parts.step(seconds);
        }
        self.peaks.push(self.peak.sample(beside(seconds)).0);
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
