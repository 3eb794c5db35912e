//! Linear layers that read one input: each in high precision or through a backend.
//!
//! The backend's side of the contract (memory on loan, who fills the group's regions, what is passed to backward) is
//! kept here and nowhere else.

use fp8flow_sdk::{Backward, Counters, Forward, Group, Input, LayerFacts, Linear, Memory, Pass};
use fp8flow_tensor::{Arena, Bytes, DType, Device, Tensor};

use crate::by_reference::{tensor_mut, tensor_ref};
use crate::parameters::position;
use crate::{DecoderError, ParameterSpec, Parameters};

/// One linear layer: where its parameters stand and who multiplies.
struct Layer {
    name: String,
    /// Index of the weight among the parameters.
    weight: usize,
    /// Index of the bias.
    bias: Option<usize>,
    /// Which cast of the input it shares: a number for each distinct [`LayerFacts::group`].
    share: usize,
    /// Outputs and inputs.
    shape: [usize; 2],
    arithmetic: Arithmetic,
}

/// The most layers that read one input, and so the most casts of it: those of q, k and v.
const MOST: usize = 3;

enum Arithmetic {
    /// In the activations' type; under bf16 with the weight rounded once a step.
    High { rounded: Option<Tensor> },
    /// Through a backend.
    Fp8(Box<dyn Linear>),
}

/// Layers that read the same input. Those of one [`LayerFacts::group`] share its cast too; under several recipes an
/// input has several casts, each in memory of its own.
pub(crate) struct LinearGroup {
    layers: Vec<Layer>,
}

/// What a group keeps from forward to backward.
#[derive(Debug)]
pub(crate) struct Kept {
    /// One for each cast of the input.
    shared: [Bytes; MOST],
    layers: Vec<Bytes>,
}

/// Memory lent for the length of a call, shared by every group of a decoder.
#[derive(Debug)]
pub(crate) struct Loan {
    /// One for each cast of the input.
    shared: [Bytes; MOST],
    scratch: Bytes,
}

/// The sizes of a [`Loan`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoanSize {
    shared: [usize; MOST],
    scratch: usize,
}

impl LoanSize {
    /// What serves both.
    pub(crate) fn max(self, other: Self) -> Self {
        let shared = std::array::from_fn(|i| self.shared[i].max(other.shared[i]));
        Self { shared, scratch: self.scratch.max(other.scratch) }
    }

    /// Takes the memory.
    pub(crate) fn take(self, arena: &mut Arena) -> Loan {
        Loan { shared: self.shared.map(|len| arena.region(len)), scratch: arena.region(self.scratch) }
    }
}

impl LinearGroup {
    /// The group of `facts`; `backend` gives the layer's FP8 arithmetic, or none for high precision.
    pub(crate) fn new(
        facts: &[LayerFacts],
        specs: &[ParameterSpec],
        dtype: DType,
        arena: &mut Arena,
        mut backend: impl FnMut(&LayerFacts) -> Result<Option<Box<dyn Linear>>, DecoderError>,
    ) -> Result<Self, DecoderError> {
        let mut layers = Vec::new();
        let mut groups: Vec<&[String]> = Vec::new();
        for facts in facts {
            let share = groups.iter().position(|group| *group == facts.group).unwrap_or_else(|| {
                groups.push(&facts.group);
                groups.len() - 1
            });
            let index = |suffix: &str| position(specs, &format!("{}.{suffix}", facts.name));
            let weight = index("weight").ok_or_else(|| DecoderError::NoParameter(facts.name.clone()))?;
            let arithmetic = match backend(facts)? {
                Some(linear) => Arithmetic::Fp8(linear),
                None => Arithmetic::High {
                    rounded: (dtype == DType::Bf16)
                        .then(|| arena.tensor(dtype, facts.out_features, facts.in_features)),
                },
            };
            let (name, shape) = (facts.name.clone(), [facts.out_features, facts.in_features]);
            layers.push(Layer { name, weight, bias: index("bias"), share, shape, arithmetic });
        }
        Ok(Self { layers })
    }

    fn memories(&self, tokens: usize) -> impl Iterator<Item = Memory> {
        self.layers.iter().map(move |layer| match &layer.arithmetic {
            Arithmetic::High { .. } => Memory { keep_input: true, ..Memory::default() },
            Arithmetic::Fp8(linear) => linear.memory(tokens),
        })
    }

    /// Whether backward reads the input again.
    pub(crate) fn keeps_input(&self, tokens: usize) -> bool {
        self.memories(tokens).any(|memory| memory.keep_input)
    }

    /// For each cast of the input, the largest of what its layers ask for.
    fn largest(&self, tokens: usize, asked: impl Fn(&Memory) -> usize) -> [usize; MOST] {
        let mut largest = [0; MOST];
        for (layer, memory) in self.layers.iter().zip(self.memories(tokens)) {
            largest[layer.share] = largest[layer.share].max(asked(&memory));
        }
        largest
    }

    /// Room for what any one of `groups` keeps, for up to `tokens` tokens; they have equally many layers.
    pub(crate) fn kept(groups: &[&Self], tokens: usize, arena: &mut Arena) -> Kept {
        let (mut shared, mut layers) = ([0; MOST], Vec::new());
        for group in groups {
            let own = group.largest(tokens, |memory| memory.shared_saved);
            shared.iter_mut().zip(own).for_each(|(len, own)| *len = own.max(*len));
            layers.resize(group.layers.len(), 0);
            let saved = group.memories(tokens).map(|memory| memory.saved);
            layers.iter_mut().zip(saved).for_each(|(len, own)| *len = own.max(*len));
        }
        Kept {
            shared: shared.map(|len| arena.region(len)),
            layers: layers.into_iter().map(|len| arena.region(len)).collect(),
        }
    }

    /// What must be lent for up to `tokens` tokens.
    pub(crate) fn loan(&self, tokens: usize) -> LoanSize {
        let scratch = |memory: Memory| memory.forward_scratch.max(memory.backward_scratch);
        LoanSize {
            shared: self.largest(tokens, |memory| memory.shared_forward),
            scratch: self.memories(tokens).map(scratch).max().unwrap_or(0),
        }
    }

    /// Outputs and inputs of the layers in high precision.
    pub(crate) fn high(&self) -> impl Iterator<Item = [usize; 2]> {
        let high = |layer: &&Layer| matches!(layer.arithmetic, Arithmetic::High { .. });
        self.layers.iter().filter(high).map(|layer| layer.shape)
    }

    /// Memory that the backend holds for itself.
    pub(crate) fn own(&self, tokens: usize) -> usize {
        self.memories(tokens).map(|memory| memory.own).sum()
    }

    /// The masters have changed.
    pub(crate) fn weights_changed(&mut self, device: &dyn Device, parameters: &Parameters) {
        for layer in &mut self.layers {
            if let Arithmetic::High { rounded: Some(rounded) } = &mut layer.arithmetic {
                device.convert(&parameters.tensors()[layer.weight], rounded);
            }
        }
    }

    /// `outputs[i] = x·W[i]ᵀ + bias[i]`.
    pub(crate) fn forward(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        pass: Pass,
        telemetry: bool,
        x: &Tensor,
        outputs: &mut [&mut Tensor],
        kept: &mut Kept,
        loan: &mut Loan,
    ) -> Result<(), DecoderError> {
        let masters = parameters.tensors();
        let mut ready = [false; MOST];
        for ((layer, y), own) in self.layers.iter_mut().zip(outputs).zip(&mut kept.layers) {
            let master = &masters[layer.weight];
            match &mut layer.arithmetic {
                Arithmetic::High { rounded } => device.linear(x, rounded.as_ref().unwrap_or(master), y),
                Arithmetic::Fp8(linear) => {
                    let _span = tracing::trace_span!("forward", layer = layer.name.as_str()).entered();
                    let memory = linear.memory(x.rows());
                    let keep = usize::from(pass != Pass::Eval);
                    let call = Forward {
                        pass,
                        x: Input::from(tensor_ref(x)),
                        weight: tensor_ref(master),
                        y: tensor_mut(y),
                        group: Group {
                            ready: ready[layer.share],
                            saved: lend(
                                &mut kept.shared[layer.share],
                                keep * memory.shared_saved,
                                &layer.name,
                            )?,
                            forward: lend(&mut loan.shared[layer.share], memory.shared_forward, &layer.name)?,
                        },
                        saved: lend(own, keep * memory.saved, &layer.name)?,
                        scratch: lend(&mut loan.scratch, memory.forward_scratch, &layer.name)?,
                        telemetry,
                    };
                    linear.forward(call).map_err(|source| DecoderError::layer(&layer.name, source))?;
                    ready[layer.share] = true;
                }
            }
            if let Some(bias) = layer.bias {
                device.bias(&masters[bias], y);
            }
        }
        Ok(())
    }

    /// `dx = Σ dy[i]·W[i]`, `dW[i] (+)= dy[i]ᵀ·x`, `dbias[i] += Σ_t dy[i]`; `x` where [`LinearGroup::keeps_input`].
    pub(crate) fn backward(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        telemetry: bool,
        x: Option<&Tensor>,
        dys: &[&Tensor],
        dx: &mut Tensor,
        gradients: &mut Parameters,
        accumulate: bool,
        kept: &Kept,
        loan: &mut Loan,
    ) -> Result<(), DecoderError> {
        let masters = parameters.tensors();
        for (i, ((layer, &dy), own)) in self.layers.iter_mut().zip(dys).zip(&kept.layers).enumerate() {
            let master = &masters[layer.weight];
            let dw = &mut gradients.tensors_mut()[layer.weight];
            match &mut layer.arithmetic {
                Arithmetic::High { rounded } => {
                    let x = x.ok_or_else(|| DecoderError::NoInput(layer.name.clone()))?;
                    let weight = rounded.as_ref().unwrap_or(master);
                    device.linear_backward(dy, x, weight, Some(dx), i > 0, dw, accumulate);
                }
                Arithmetic::Fp8(linear) => {
                    let _span = tracing::trace_span!("backward", layer = layer.name.as_str()).entered();
                    let memory = linear.memory(dy.rows());
                    let call = Backward {
                        dy: tensor_ref(dy),
                        weight: tensor_ref(master),
                        x: x.filter(|_| memory.keep_input).map(tensor_ref),
                        dx: Some(tensor_mut(dx)),
                        accumulate_dx: i > 0,
                        dw: tensor_mut(dw),
                        accumulate_dw: accumulate,
                        group_saved: kept_bytes(&kept.shared[layer.share], memory.shared_saved, &layer.name)?,
                        saved: kept_bytes(own, memory.saved, &layer.name)?,
                        scratch: lend(&mut loan.scratch, memory.backward_scratch, &layer.name)?,
                        telemetry,
                    };
                    linear.backward(call).map_err(|source| DecoderError::layer(&layer.name, source))?;
                }
            }
            if let Some(bias) = layer.bias {
                device.bias_backward(dy, &mut gradients.tensors_mut()[bias]);
            }
        }
        Ok(())
    }

    /// Name and counters of the layers that run through a backend.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, Counters)> {
        self.layers.iter().filter_map(|layer| match &layer.arithmetic {
            Arithmetic::High { .. } => None,
            Arithmetic::Fp8(linear) => Some((layer.name.as_str(), linear.counters())),
        })
    }
}

/// The first `len` bytes; a backend that asks for more than it did for the largest micro-batch is at fault.
fn lend<'a>(bytes: &'a mut Bytes, len: usize, layer: &str) -> Result<&'a mut [u8], DecoderError> {
    let planned = bytes.get().len();
    bytes.get_mut().get_mut(..len).ok_or_else(|| unplanned(layer, len, planned))
}

fn kept_bytes<'a>(bytes: &'a Bytes, len: usize, layer: &str) -> Result<&'a [u8], DecoderError> {
    bytes.get().get(..len).ok_or_else(|| unplanned(layer, len, bytes.get().len()))
}

fn unplanned(layer: &str, asked: usize, planned: usize) -> DecoderError {
    let message = format!(
        "layer `{layer}`: the backend asks for {asked} bytes for a micro-batch, but for {planned} for the largest one it was asked about"
    );
    DecoderError::layer(layer, fp8flow_sdk::Error::protocol(message))
}

#[cfg(test)]
mod tests;
