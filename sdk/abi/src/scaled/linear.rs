//! One linear layer, wherever its tensors lie.

#[cfg(feature = "cuda")]
use crate::scaled::card::CardLinear;
use crate::scaled::cast::Gemms;
use crate::scaled::cpu::CpuLinear;
use crate::scaled::scales::Scales;
use crate::scaled::weights::Generation;
use crate::{Backward, Counters, Error, Forward, Host, InputFormat, LayerFacts, Linear, Memory, Result};

/// A layer whose operands are cast as a [`Gemms`] table says.
#[derive(Debug)]
pub struct ScaledLinear(Place);

#[derive(Debug)]
enum Place {
    Cpu(Box<CpuLinear>),
    #[cfg(feature = "cuda")]
    Card(Box<CardLinear>),
    /// A device that this backend was not built for.
    Elsewhere(u32),
}

impl ScaledLinear {
    /// The arithmetic of `layer`, all of whose scales come from the tensors being cast, on the device that the layer's
    /// tensors will lie on. Of other devices than the CPU, NVIDIA's cards are known, with the feature `cuda`.
    ///
    /// `generation` is a clone of the one that the recipe advances when the weights have changed.
    pub fn new(host: Host, layer: &LayerFacts, gemms: Gemms, generation: Generation) -> Self {
        Self(match layer.device {
            None => Place::Cpu(Box::new(CpuLinear::new(host, layer, gemms, generation))),
            Some(device) if device.is_cpu() => {
                Place::Cpu(Box::new(CpuLinear::new(host, layer, gemms, generation)))
            }
            #[cfg(feature = "cuda")]
            Some(device) if device.is_cuda() => {
                Place::Card(Box::new(CardLinear::new(device, layer, gemms, generation)))
            }
            Some(device) => Place::Elsewhere(device.kind),
        })
    }

    /// The same, with `scales` for its delayed casts.
    #[must_use]
    pub fn with_scales(mut self, scales: Box<dyn Scales>) -> Self {
        match &mut self.0 {
            Place::Cpu(linear) => linear.scales = Some(scales),
            #[cfg(feature = "cuda")]
            Place::Card(linear) => linear.scales = Some(scales),
            Place::Elsewhere(_) => {}
        }
        self
    }

    fn linear(&self) -> Result<&dyn Linear> {
        match &self.0 {
            Place::Cpu(linear) => Ok(&**linear),
            #[cfg(feature = "cuda")]
            Place::Card(linear) => Ok(&**linear),
            Place::Elsewhere(kind) => Err(elsewhere(*kind)),
        }
    }

    fn linear_mut(&mut self) -> Result<&mut dyn Linear> {
        match &mut self.0 {
            Place::Cpu(linear) => Ok(&mut **linear),
            #[cfg(feature = "cuda")]
            Place::Card(linear) => Ok(&mut **linear),
            Place::Elsewhere(kind) => Err(elsewhere(*kind)),
        }
    }
}

fn elsewhere(kind: u32) -> Error {
    let what = if kind == 1 { "NVIDIA's cards".into() } else { format!("devices of kind {kind}") };
    Error::unsupported(format!("this backend was built without {what}")).with_help("set `device = \"cpu\"`")
}

impl Linear for ScaledLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.linear().map_or(Memory::default(), |linear| linear.memory(tokens))
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.linear().map_or(Vec::new(), Linear::input_formats)
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.linear_mut()?.forward(call)
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        self.linear_mut()?.backward(call)
    }

    fn counters(&self) -> Counters {
        self.linear().map_or(Counters::default(), Linear::counters)
    }
}
