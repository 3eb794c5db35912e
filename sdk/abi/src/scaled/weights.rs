//! The casts of a layer's weight, made once an optimizer step.
//!
//! The master changes only when the optimizer steps, so its casts are kept until the recipe hears of that; a generation
//! counter, shared with all layers, tells the stale from the fresh. A cast keeps its own scale, whatever becomes of the
//! recipe's meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fp8flow_kernels::{Cpu, Matrix};

use crate::scaled::cast::{Cast, Gemms};
use crate::scaled::operand::{self, Encoded, EncodedMut, Role, Tally};
use crate::scaled::scales::Scales;
use crate::{Pass, Result};

/// Counts how often the weights have changed. Clones count together: a recipe keeps one and gives each layer another.
#[derive(Clone, Debug, Default)]
pub struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Every cast made so far is stale: for [`crate::Event::WeightsChanged`].
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    // Calls on a recipe and its layers are ordered by the engine; nothing else is published with the counter.
    pub(super) fn now(&self) -> u64 {
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
    /// Whether the recipe was told the absolute maximum.
    recorded: bool,
    codes: Vec<u8>,
    floats: Vec<f32>,
}

impl WeightCache {
    /// An empty cache; memory is taken at the first cast.
    pub(crate) fn new(gemms: &Gemms, rows: usize, cols: usize, generation: Generation) -> Self {
        let slot =
            |cast| Slot { cast, made_in: None, recorded: false, codes: Vec::new(), floats: Vec::new() };
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
        pass: Pass,
        scales: Option<&mut (dyn Scales + 'static)>,
        telemetry: bool,
    ) -> Result<Tally> {
        let now = self.generation.now();
        // An evaluation may come between two steps; the cast for backward waits until one is needed.
        let dgrad = self.dgrad.as_mut().filter(|_| pass != Pass::Eval);
        refresh(cpu, weight, now, pass, [Some(&mut self.fprop), dgrad], scales, telemetry)
    }

    /// Makes the cast for dgrad fresh.
    pub(crate) fn refresh_backward(
        &mut self,
        cpu: &Cpu<'_>,
        weight: Matrix<'_>,
        scales: Option<&mut (dyn Scales + 'static)>,
        telemetry: bool,
    ) -> Result<Tally> {
        let now = self.generation.now();
        let slot = self.dgrad.as_mut().unwrap_or(&mut self.fprop);
        refresh(cpu, weight, now, Pass::Train, [Some(slot), None], scales, telemetry)
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

/// Makes the casts of `slots` anew where they are stale, and tells `scales` of them, once and in training only.
fn refresh(
    cpu: &Cpu<'_>,
    weight: Matrix<'_>,
    now: u64,
    pass: Pass,
    mut slots: [Option<&mut Slot>; 2],
    mut scales: Option<&mut (dyn Scales + 'static)>,
    telemetry: bool,
) -> Result<Tally> {
    let mut stale =
        slots.each_mut().map(|slot| slot.as_mut().and_then(|slot| slot.renew_if_stale(weight, now)));
    let delayed = stale.iter_mut().flatten();
    operand::set_delayed(cpu, weight, delayed, (Role::Weight, pass), scales.as_deref_mut())?;
    let [fprop, dgrad] = &mut stale;
    let tally = operand::cast(cpu, weight, [fprop.as_mut(), dgrad.as_mut()], telemetry);
    if pass == Pass::Train {
        for slot in slots.into_iter().flatten() {
            let amax = slot.codes(weight.rows, weight.cols).amax();
            if let (Some(amax), Some(scales), false) = (amax, &mut scales, slot.recorded) {
                scales.record(Role::Weight, amax);
                slot.recorded = true;
            }
        }
    }
    Ok(tally)
}

impl Slot {
    /// Room for a fresh cast, unless there is one.
    fn renew_if_stale(&mut self, weight: Matrix<'_>, now: u64) -> Option<EncodedMut<'_>> {
        if self.made_in.replace(now) == Some(now) {
            return None;
        }
        self.recorded = false;
        self.codes.resize(weight.rows * weight.cols, 0);
        self.floats.resize(operand::floats(self.cast, weight.rows, weight.cols), 0.0);
        Some(EncodedMut { cast: self.cast, codes: &mut self.codes, factors: &mut self.floats })
    }

    fn codes(&self, rows: usize, cols: usize) -> Encoded<'_> {
        Encoded::new(self.cast, &self.codes, &self.floats, rows, cols)
    }
}
