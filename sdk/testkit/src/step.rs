//! What passes compute.

use crate::memory::Guarded;
use crate::values::Values;

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
        let y = |step: &Self, i: usize| step.outputs[i].bytes().to_vec();
        let dx = |step: &Self, i: usize| step.gradients[i].dx.as_ref().map(|dx| dx.bytes().to_vec());
        let dw =
            |step: &Self, i: usize| step.gradients[i].dw.iter().map(|dw| dw.to_bits()).collect::<Vec<_>>();
        let layers = 0..self.outputs.len();
        layers
            .map(|i| {
                (y(self, i) != y(other, i))
                    .then(|| format!("y of layer {i}"))
                    .or_else(|| (dx(self, i) != dx(other, i)).then(|| format!("dx of layer {i}")))
                    .or_else(|| (dw(self, i) != dw(other, i)).then(|| format!("dW of layer {i}")))
            })
            .find_map(|found| found)
    }
}
