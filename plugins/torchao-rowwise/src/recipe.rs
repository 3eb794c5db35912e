//! A recipe configured for one run: decides, describes itself, creates the layers.

use fp8flow_sdk::kernels::NUMERICS_REVISION;
use fp8flow_sdk::kernels::scale::AMAX_FLOOR;
use fp8flow_sdk::scaled::{Gemms, Generation, ScaledLinear};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{Decision, Error, Event, Host, LayerFacts, Linear, Precision, Recipe, Result};

use crate::recipes::{POWER_OF_TWO, RecipeName, gemms};

/// What an FP8 GEMM asks of K and N: the 16-byte rows of the tensor cores, and torchao's own condition.
const MULTIPLE: usize = 16;

/// One of the recipes, with its casts settled. It keeps no state: all scaling is dynamic.
#[derive(Debug)]
pub(crate) struct Configured {
    host: Host,
    name: RecipeName,
    power_of_two: bool,
    gemms: Gemms,
    generation: Generation,
}

impl Configured {
    pub(crate) fn new(host: Host, name: RecipeName, power_of_two: bool) -> Self {
        let gemms = gemms(name, power_of_two);
        Self { host, name, power_of_two, gemms, generation: Generation::default() }
    }
}

impl Recipe for Configured {
    fn describe(&self) -> Value {
        let mut about = json!({
            "backend": "torchao-rowwise",
            "recipe": self.name.as_str(),
            "options": { POWER_OF_TWO: self.power_of_two },
            "scaling": "dynamic",
            "amax_floor": AMAX_FLOOR,
            "accumulation": "f32",
            "kernels_numerics_revision": NUMERICS_REVISION,
        });
        about.as_object_mut().expect("an object").extend(self.gemms.describe());
        about
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.gemms.decide(self.name.as_str(), MULTIPLE, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let Decision { precision, reason, .. } = self.decide(layer);
        if precision == Precision::High {
            return Err(Error::invalid(reason));
        }
        Ok(Box::new(ScaledLinear::new(self.host.clone(), layer, self.gemms, self.generation.clone())))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}
