//! The casts of a layer's weight, made once an optimizer step.
//!
//! torchao casts a weight twice in every micro-batch. The master changes only when the optimizer steps, so its casts
//! are kept until the recipe hears of that; a generation counter, shared with all layers, tells the stale from the fresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fp8flow_sdk::kernels::{Cpu, Matrix};

use crate::operand::{self, Encoded, EncodedMut, Tally};
use crate::recipes::{Cast, Gemms};

/// Counts how often the weights have changed. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Every cast made so far is stale.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    // Calls on a recipe and its layers are ordered by the engine; nothing else is published with the counter.
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The casts of one `N × K` weight.
#[derive(Debug)]
pub(crate) struct WeightCache {
    rows: usize,
    cols: usize,
    generation: Generation,
    fprop: Slot,
    /// None where the cast for fprop serves dgrad too.
    dgrad: Option<Slot>,
}

#[derive(Debug)]
struct Slot {
    cast: Cast,
    made_in: Option<u64>,
    codes: Vec<u8>,
    factors: Vec<f32>,
}

impl WeightCache {
    /// An empty cache; memory is taken at the first cast.
    pub(crate) fn new(gemms: &Gemms, rows: usize, cols: usize, generation: Generation) -> Self {
        let slot = |cast| Slot { cast, made_in: None, codes: Vec::new(), factors: Vec::new() };
        Self { rows, cols, generation, fprop: slot(gemms.fprop.w), dgrad: gemms.w_again().map(slot) }
    }

    /// The bytes it holds once both casts were made.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |slot: &Slot| operand::bytes(slot.cast, self.rows, self.cols);
        bytes(&self.fprop) + self.dgrad.as_ref().map_or(0, bytes)
    }

    /// Makes the cast for fprop fresh, and, where a backward will follow, the one for dgrad in the same read.
    pub(crate) fn refresh_forward(
        &mut self,
        cpu: &Cpu<'_>,
        weight: Matrix<'_>,
        backward: bool,
        telemetry: bool,
    ) -> Tally {
        let now = self.generation.now();
        let fprop = Some(&mut self.fprop).filter(|slot| slot.is_stale(now));
        let dgrad = self.dgrad.as_mut().filter(|slot| backward && slot.is_stale(now));
        match (fprop, dgrad) {
            (None, None) => Tally::default(),
            (Some(slot), None) | (None, Some(slot)) => slot.make(cpu, weight, now, telemetry),
            (Some(first), Some(second)) => {
                let (mut first, mut second) = (first.renew(weight, now), second.renew(weight, now));
                operand::cast_both(cpu, weight, &mut first, &mut second, telemetry)
            }
        }
    }

    /// Makes the cast for dgrad fresh.
    pub(crate) fn refresh_backward(&mut self, cpu: &Cpu<'_>, weight: Matrix<'_>, telemetry: bool) -> Tally {
        let now = self.generation.now();
        let slot = self.dgrad.as_mut().unwrap_or(&mut self.fprop);
        if slot.is_stale(now) { slot.make(cpu, weight, now, telemetry) } else { Tally::default() }
    }

    /// The weight as fprop reads it; only after a refresh.
    pub(crate) fn fprop(&self) -> Encoded<'_> {
        self.fprop.codes(self.rows, self.cols)
    }

    /// The weight as dgrad reads it; only after a refresh.
    pub(crate) fn dgrad(&self) -> Encoded<'_> {
        self.dgrad.as_ref().unwrap_or(&self.fprop).codes(self.rows, self.cols)
    }
}

impl Slot {
    fn is_stale(&self, now: u64) -> bool {
        self.made_in != Some(now)
    }

    fn make(&mut self, cpu: &Cpu<'_>, weight: Matrix<'_>, now: u64, telemetry: bool) -> Tally {
        operand::cast(cpu, weight, &mut self.renew(weight, now), telemetry)
    }

    fn renew(&mut self, weight: Matrix<'_>, now: u64) -> EncodedMut<'_> {
        self.made_in = Some(now);
        self.codes.resize(weight.rows * weight.cols, 0);
        self.factors.resize(self.cast.scales(weight.rows, weight.cols), 0.0);
        EncodedMut { cast: self.cast, codes: &mut self.codes, factors: &mut self.factors }
    }

    fn codes(&self, rows: usize, cols: usize) -> Encoded<'_> {
        Encoded::new(self.cast, &self.codes, &self.factors, rows, cols)
    }
}
