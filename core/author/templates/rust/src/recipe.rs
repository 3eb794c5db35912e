//! The recipe at work in one run.

use fp8flow_sdk::kernels::NUMERICS_REVISION;
use fp8flow_sdk::scaled::{Gemms, Generation, ScaledLinear};
use fp8flow_sdk::serde_json::{Map, Value, json};
use fp8flow_sdk::{Decision, Error, Event, Host, LayerFacts, Linear, Precision, Recipe, Result};

use crate::table::{MULTIPLE, NAME, Settings};

/// The recipe with its options. It keeps nothing from step to step: every scale comes from the tensor being cast.
#[derive(Debug)]
pub(crate) struct Configured {
    host: Host,
    settings: Settings,
    gemms: Gemms,
    generation: Generation,
}

impl Configured {
    pub(crate) fn new(host: &Host, settings: Settings) -> Self {
        Self {
            host: host.clone(),
            settings,
            gemms: settings.gemms(),
            generation: Generation::default(),
        }
    }
}

impl Recipe for Configured {
    /// Part of the run's identity: whatever can change a bit of the result belongs in here.
    fn describe(&self) -> Value {
        let mut about = Map::new();
        about.insert("backend".into(), env!("CARGO_PKG_NAME").into());
        about.insert("recipe".into(), NAME.into());
        about.insert("options".into(), self.settings.describe());
        about.insert("kernels".into(), json!(NUMERICS_REVISION));
        about.extend(self.gemms.describe());
        Value::Object(about)
    }

    /// `fp8flow plan` prints the reason beside every layer.
    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.gemms.decide(NAME, MULTIPLE, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let Decision {
            precision, reason, ..
        } = self.decide(layer);
        if precision == Precision::High {
            return Err(Error::invalid(reason));
        }
        let (host, generation) = (self.host.clone(), self.generation.clone());
        Ok(Box::new(ScaledLinear::new(
            host, layer, self.gemms, generation,
        )))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        // The layers keep the casts of their weights until they are told that the weights have changed.
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}
