//! A recipe configured for one run: decides, describes itself, creates the layers.

use fp8flow_sdk::kernels::NUMERICS_REVISION;
use fp8flow_sdk::kernels::scale::AMAX_FLOOR;
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{Decision, Error, Event, Host, LayerFacts, Linear, Precision, Recipe, Result};

use crate::linear::Float8Linear;
use crate::recipes::{Cast, Gemms, POWER_OF_TWO, RecipeName, rule_name};
use crate::weights::Generation;

/// What an FP8 GEMM asks of K and N: the 16-byte rows of the tensor cores, and torchao's own condition.
const MULTIPLE: usize = 16;

/// One of the recipes, with its casts settled. It keeps no state: all scaling is dynamic.
#[derive(Debug)]
pub(crate) struct Configured {
    host: Host,
    name: RecipeName,
    gemms: Gemms,
    generation: Generation,
}

impl Configured {
    pub(crate) fn new(host: Host, name: RecipeName, gemms: Gemms) -> Self {
        Self { host, name, gemms, generation: Generation::default() }
    }

    /// Why `layer` cannot run in FP8, if it cannot.
    fn obstacle(layer: &LayerFacts) -> Option<String> {
        [("in_features", layer.in_features), ("out_features", layer.out_features)]
            .into_iter()
            .find(|&(_, n)| n == 0 || n % MULTIPLE != 0)
            .map(|(what, n)| {
                format!("{what} = {n} is not a positive multiple of {MULTIPLE}, as FP8 GEMMs need")
            })
    }
}

impl Recipe for Configured {
    fn describe(&self) -> Value {
        let cast = |cast: Cast| {
            json!({
                "format": cast.format.name(),
                "axis": cast.axis,
                "rule": rule_name(cast.rule),
            })
        };
        let Gemms { fprop, dgrad, wgrad } = self.gemms;
        json!({
            "backend": "torchao-rowwise",
            "recipe": self.name.as_str(),
            "options": { POWER_OF_TWO: fprop.x.rule == fp8flow_sdk::kernels::scale::ScaleRule::PowerOfTwo },
            "scaling": "dynamic",
            "amax_floor": AMAX_FLOOR,
            "fprop": { "x": cast(fprop.x), "w": cast(fprop.w) },
            "dgrad": { "dy": cast(dgrad.dy), "w": cast(dgrad.w) },
            "wgrad": match wgrad {
                Some(wgrad) => json!({ "dy": cast(wgrad.dy), "x": cast(wgrad.x) }),
                None => json!("high_precision"),
            },
            "accumulation": "f32",
            "kernels_numerics_revision": NUMERICS_REVISION,
        })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        let name = self.name.as_str();
        if let Some(obstacle) = Self::obstacle(layer) {
            return Decision { precision: Precision::High, reason: obstacle, fp8_gemms: [0; 3] };
        }
        let (x, dy) = (self.gemms.fprop.x.format.name(), self.gemms.dgrad.dy.format.name());
        let operands = if x == dy {
            format!("{x} activations, weights and gradients")
        } else {
            format!("{x} activations and weights, {dy} gradients")
        };
        let wgrad = if self.gemms.wgrad.is_some() { "" } else { "; weight gradient in high precision" };
        Decision {
            precision: Precision::Fp8,
            reason: format!("{name}: {operands}{wgrad}"),
            fp8_gemms: [1, 1, u8::from(self.gemms.wgrad.is_some())],
        }
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        if let Some(obstacle) = Self::obstacle(layer) {
            return Err(Error::invalid(obstacle));
        }
        Ok(Box::new(Float8Linear::new(self.host.clone(), layer, self.gemms, self.generation.clone())))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}
