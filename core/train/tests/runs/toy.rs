//! A linked-in backend with delayed scaling, and ways to spoil it.

use std::sync::{Arc, Mutex};

use fp8flow_kernels::{ElementsMut, Fp8, Isa};
use fp8flow_model::{Fp8Layers, linear_layers};
use fp8flow_sdk::scaled::{Cast, Gemms, Generation, Granularity, Role, ScaledLinear, Scales, Source};
use fp8flow_sdk::{
    Backward, Counters, DType, Decision, Error, Event, Forward, LayerFacts, Linear, Memory, Pass, Precision,
    Recipe, Result, StateDict, StateTensor, TensorMut,
};

use crate::common::model;

/// The layer that is spoilt.
pub(crate) const SPOILT: &str = "model.layers.1.mlp.down_proj";

/// What is wrong with [`SPOILT`], or with the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Counts nothing.
    Silent,
    /// Counts no evaluation.
    SilentInEvaluation,
    /// Leaves `dW` as it is.
    NoGradient,
    /// Keeps no state.
    Stateless,
}

/// The largest magnitude of each role in the last step and in this one.
type Maxima = Arc<Mutex<[[f32; 3]; 2]>>;

struct Toy {
    fault: Fault,
    maxima: Vec<(String, Maxima)>,
    generation: Generation,
}

/// The recipe for every layer but the output head.
pub(crate) fn fp8(fault: Fault) -> Fp8Layers {
    let recipe = Toy { fault, maxima: Vec::new(), generation: Generation::default() };
    let decide = |facts: LayerFacts| {
        let precision = if facts.name == "lm_head" { Precision::High } else { Precision::Fp8 };
        let gemms = u8::from(precision == Precision::Fp8);
        (facts, Decision { precision, reason: String::new(), fp8_gemms: [gemms; 3] })
    };
    let layers = linear_layers(&model(), None).into_iter().map(decide).collect();
    Fp8Layers { recipe: Box::new(recipe), layers }
}

/// Name and decision of every layer.
pub(crate) fn decisions(fp8: &Fp8Layers) -> Vec<(String, Decision)> {
    fp8.layers.iter().map(|(facts, decision)| (facts.name.clone(), decision.clone())).collect()
}

fn gemms() -> Gemms {
    Gemms::alike(Cast { format: Fp8::E4m3, granularity: Granularity::Tensor, source: Source::Delayed })
}

impl Recipe for Toy {
    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "toy": true })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        gemms().decide("toy", 16, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let maxima = Maxima::new(Mutex::new([[8.0, 0.1, 0.01], [0.0; 3]]));
        self.maxima.push((layer.name.clone(), maxima.clone()));
        let host = fp8flow_testkit::host(Isa::best(), 1);
        let linear = ScaledLinear::new(host, layer, gemms(), self.generation.clone())
            .with_scales(Box::new(Delayed(maxima)));
        let fault = if layer.name == SPOILT { self.fault } else { Fault::None };
        Ok(Box::new(Spoilt { linear, fault, evaluations: 0 }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::WeightsChanged => self.generation.advance(),
            Event::BackwardDone => {
                for (_, maxima) in &self.maxima {
                    let mut maxima = maxima.lock().unwrap();
                    let [past, present] = &mut *maxima;
                    for (past, present) in past.iter_mut().zip(present) {
                        *past = if *present > 0.0 { *present } else { *past };
                        *present = 0.0;
                    }
                }
            }
            Event::ForwardDone => {}
        }
        Ok(())
    }

    fn state(&self) -> Result<StateDict> {
        let tensors = self.maxima.iter().filter(|_| self.fault != Fault::Stateless).map(|(name, maxima)| {
            let bytes = maxima.lock().unwrap().iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            (name.clone(), StateTensor { dtype: DType::F32, shape: vec![2, 3], bytes })
        });
        Ok(StateDict(tensors.collect()))
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        if self.fault == Fault::Stateless {
            return state.expect_empty();
        }
        for (name, maxima) in &self.maxima {
            let tensor = state.0.get(name).ok_or_else(|| Error::invalid(format!("no maxima of `{name}`")))?;
            let mut numbers = tensor.bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()));
            maxima.lock().unwrap().as_flattened_mut().fill_with(|| numbers.next().unwrap());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Delayed(Maxima);

impl Scales for Delayed {
    fn scale(&mut self, role: Role, _: Pass, _: &mut dyn FnMut() -> f32) -> f32 {
        // Half the range is left for growth.
        224.0 / self.0.lock().unwrap()[0][role as usize]
    }

    fn record(&mut self, role: Role, amax: f32) {
        let present = &mut self.0.lock().unwrap()[1][role as usize];
        *present = present.max(amax);
    }

    fn age(&self, _: Role) -> u64 {
        1
    }
}

struct Spoilt {
    linear: ScaledLinear,
    fault: Fault,
    evaluations: u64,
}

impl Linear for Spoilt {
    fn memory(&self, tokens: usize) -> Memory {
        self.linear.memory(tokens)
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.evaluations += u64::from(call.pass == Pass::Eval);
        self.linear.forward(call)
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        if self.fault == Fault::NoGradient {
            let shape: Vec<usize> = call.dw.shape().iter().map(|&n| n as usize).collect();
            let mut elsewhere = vec![0.0; shape.iter().product()];
            let dw = TensorMut::new(ElementsMut::F32(&mut elsewhere), &shape);
            return self.linear.backward(Backward { dw, ..call });
        }
        self.linear.backward(call)
    }

    fn counters(&self) -> Counters {
        let counters = self.linear.counters();
        match self.fault {
            Fault::Silent => Counters::default(),
            Fault::SilentInEvaluation => Counters { fprop: counters.fprop - self.evaluations, ..counters },
            _ => counters,
        }
    }
}
