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
        let mut fprop = self.fprop.renew_if_stale(weight, now);
        let dgrad = self.dgrad.as_mut().filter(|_| backward);
        let mut dgrad = dgrad.and_then(|slot| slot.renew_if_stale(weight, now));
        operand::cast(cpu, weight, [fprop.as_mut(), dgrad.as_mut()], telemetry)
    }

    /// Makes the cast for dgrad fresh.
    pub(crate) fn refresh_backward(&mut self, cpu: &Cpu<'_>, weight: Matrix<'_>, telemetry: bool) -> Tally {
        let now = self.generation.now();
        let slot = self.dgrad.as_mut().unwrap_or(&mut self.fprop);
        operand::cast(cpu, weight, [slot.renew_if_stale(weight, now).as_mut(), None], telemetry)
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
    /// Room for a fresh cast, unless there is one.
    fn renew_if_stale(&mut self, weight: Matrix<'_>, now: u64) -> Option<EncodedMut<'_>> {
        if self.made_in.replace(now) == Some(now) {
            return None;
        }
        self.codes.resize(weight.rows * weight.cols, 0);
        self.factors.resize(self.cast.scales(weight.rows, weight.cols), 0.0);
        Some(EncodedMut { cast: self.cast, codes: &mut self.codes, factors: &mut self.factors })
    }

    fn codes(&self, rows: usize, cols: usize) -> Encoded<'_> {
        Encoded::new(self.cast, &self.codes, &self.factors, rows, cols)
    }
}
