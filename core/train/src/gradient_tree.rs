//! Gradients of micro-batches added in the canonical binary tree over their index.
//!
//! The tree of n leaves splits at the largest power of two below n (RFC 6962). Streaming, it is a binary counter:
//! two sums over equally many micro-batches are added as soon as both exist, and what is left is added from the right.
//! A later split of the micro-batches over machines can therefore give the same bits.

use fp8flow_model::{ParameterSpec, Parameters};
use fp8flow_tensor::{CardError, Device};

/// How the gradients of a step's micro-batches are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulation {
    /// In the canonical tree; up to ⌈log₂ n⌉ + 1 gradients in memory.
    Tree,
    /// One after the other into a single gradient.
    Sequential,
}

impl Accumulation {
    /// Gradients that stand in memory at once for `n` micro-batches.
    pub fn buffers(self, n: usize) -> usize {
        match self {
            Self::Sequential => 1,
            Self::Tree if n <= 1 => 1,
            Self::Tree => (n - 1).ilog2() as usize + 2,
        }
    }
}

/// The sums of a step so far.
#[derive(Debug)]
pub struct GradientTree {
    accumulation: Accumulation,
    /// Sums over 2^level micro-batches, the largest level first.
    sums: Vec<(u32, Parameters)>,
    free: Vec<Parameters>,
}

impl GradientTree {
    /// Room for the gradients of `n` micro-batches a step.
    pub fn new(
        accumulation: Accumulation,
        n: usize,
        device: &dyn Device,
        specs: &[ParameterSpec],
    ) -> Result<Self, CardError> {
        let zeros = |_| Parameters::zeros_on(device, specs);
        let free = (0..accumulation.buffers(n)).map(zeros).collect::<Result<_, _>>()?;
        Ok(Self { accumulation, sums: Vec::new(), free })
    }

    /// Adds the next micro-batch: `compute(gradient, accumulate)` writes it, or adds it where `accumulate`.
    pub fn add<E>(
        &mut self,
        device: &dyn Device,
        compute: impl FnOnce(&mut Parameters, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.accumulation == Accumulation::Sequential
            && let Some((_, sum)) = self.sums.last_mut()
        {
            return compute(sum, true);
        }
        let mut gradient = self.free.pop().expect("as many buffers as the tree is deep");
        if let Err(error) = compute(&mut gradient, false) {
            self.free.push(gradient);
            return Err(error);
        }
        let mut level = 0;
        while let Some((below, mut sum)) = self.sums.pop_if(|(below, _)| *below == level) {
            add(device, &mut sum, &gradient);
            self.free.push(std::mem::replace(&mut gradient, sum));
            level = below + 1;
        }
        self.sums.push((level, gradient));
        Ok(())
    }

    /// The gradient of the whole step.
    ///
    /// # Panics
    /// If no micro-batch was added.
    pub fn total(&mut self, device: &dyn Device) -> &Parameters {
        while self.sums.len() > 1
            && let Some((_, right)) = self.sums.pop()
        {
            let (_, left) = self.sums.last_mut().expect("more than one");
            add(device, left, &right);
            self.free.push(right);
        }
        &self.sums.last().expect("a micro-batch was added").1
    }

    /// Begins the next step.
    pub fn clear(&mut self) {
        self.free.extend(self.sums.drain(..).map(|(_, gradient)| gradient));
    }
}

fn add(device: &dyn Device, sum: &mut Parameters, more: &Parameters) {
    for (sum, more) in sum.tensors_mut().iter_mut().zip(more.tensors()) {
        device.accumulate(sum, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fp8flow_kernels::{Isa, Serial};
    use fp8flow_model::ParameterKind;
    use fp8flow_tensor::CpuDevice;
    use std::sync::Arc;

    /// The tree by its definition.
    fn by_definition(leaves: &[f32]) -> f32 {
        if let [leaf] = leaves {
            return *leaf;
        }
        let split = 1 << (leaves.len() - 1).ilog2();
        by_definition(&leaves[..split]) + by_definition(&leaves[split..])
    }

    #[test]
    fn the_streamed_tree_is_the_tree_by_its_definition_and_fits_its_buffers() {
        let device = CpuDevice::new(Isa::best(), Arc::new(Serial));
        let specs = [ParameterSpec { name: "w".into(), shape: vec![1], kind: ParameterKind::Norm }];
        for n in 1..40_usize {
            let leaves: Vec<f32> =
                (0..n).map(|i| (1.0 + i as f32).ln() * 1e3_f32.powi(i as i32 % 5 - 2)).collect();
            let mut tree = GradientTree::new(Accumulation::Tree, n, &device, &specs).unwrap();
            for _ in 0..2 {
                for leaf in &leaves {
                    tree.add(&device, |gradient, accumulate| {
                        assert!(!accumulate);
                        gradient.tensors_mut()[0].f32_mut()[0] = *leaf;
                        Ok::<_, ()>(())
                    })
                    .unwrap();
                }
                assert_eq!(tree.total(&device).tensors()[0].f32()[0], by_definition(&leaves), "{n} leaves");
                tree.clear();
            }
        }
    }

    #[test]
    fn sequential_accumulation_adds_in_place() {
        let device = CpuDevice::new(Isa::best(), Arc::new(Serial));
        let specs = [ParameterSpec { name: "w".into(), shape: vec![1], kind: ParameterKind::Norm }];
        let mut tree = GradientTree::new(Accumulation::Sequential, 3, &device, &specs).unwrap();
        for i in 0..3 {
            tree.add(&device, |gradient, accumulate| {
                assert_eq!(accumulate, i > 0);
                let x = &mut gradient.tensors_mut()[0].f32_mut()[0];
                *x = if accumulate { *x + 1.0 } else { 1.0 };
                Ok::<_, ()>(())
            })
            .unwrap();
        }
        assert_eq!(tree.total(&device).tensors()[0].f32()[0], 3.0);
    }
}
