//! What passes compute.

use crate::elsewhere::{agree, agree_in_numbers};
use crate::memory::Guarded;
use crate::values::{Activations, Values};

/// What a forward has left for backward.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The group's region.
    pub group: Guarded,
    /// Each layer's own.
    pub layers: Vec<Guarded>,
}

/// What a backward should write.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[M, K]`, unless nobody needs it.
    pub dx: Option<Values>,
    /// `[N, K]`, f32.
    pub dw: Vec<f32>,
    /// Whether to add to what is in `dx`.
    pub accumulate_dx: bool,
    /// Whether to add to what is in `dw`.
    pub accumulate_dw: bool,
}

impl Gradients {
    /// Every bit of `dx` and `dW`.
    pub(crate) fn bits(&self) -> Vec<u8> {
        let dx = self.dx.iter().flat_map(|dx| dx.bytes().to_vec());
        dx.chain(self.dw.iter().flat_map(|dw| dw.to_le_bytes())).collect()
    }
}

/// What a step computed, layer by layer.
#[derive(Clone, Debug)]
pub struct Step {
    /// `[M, N]` each.
    pub outputs: Vec<Values>,
    /// `dx` and `dW` each.
    pub gradients: Vec<Gradients>,
}

impl Step {
    /// Every bit of it, for comparisons.
    pub fn bits(&self) -> Vec<u8> {
        let mut bits: Vec<u8> = self.outputs.iter().flat_map(|y| y.bytes().to_vec()).collect();
        bits.extend(self.gradients.iter().flat_map(Gradients::bits));
        bits
    }
}

impl Step {
    /// The first result whose bits are others in `other`, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        self.differs(other, false)
    }

    /// The same; on a card, the first result that no other order of sums gives.
    pub(crate) fn differs(&self, other: &Self, on_card: bool) -> Option<String> {
        let pairs = self.outputs.iter().zip(&other.outputs).zip(self.gradients.iter().zip(&other.gradients));
        pairs.enumerate().find_map(|(i, ((y, other_y), (gradients, others)))| {
            let cols = gradients.dx.as_ref().map_or(1, Values::cols);
            let dx_agrees = match (&gradients.dx, &others.dx) {
                (Some(dx), Some(other)) => agree(on_card, dx, other),
                (dx, other) => dx.is_none() == other.is_none(),
            };
            if !agree(on_card, y, other_y) {
                Some(format!("y of layer {i}"))
            } else if !dx_agrees {
                Some(format!("dx of layer {i}"))
            } else if !agree_in_numbers(on_card, Activations::F32, cols, &gradients.dw, &others.dw) {
                Some(format!("dW of layer {i}"))
            } else {
                None
            }
        })
    }
}
