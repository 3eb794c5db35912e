//! A recipe configured for one run: decides, describes itself, creates the layers, updates their histories.

use fp8flow_sdk::kernels::NUMERICS_REVISION;
use fp8flow_sdk::scaled::{Gemms, Generation, Role, ScaledLinear};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Decision, Error, Event, Host, LayerFacts, Linear, Options, Precision, Recipe, Result, StateDict,
};

use crate::delayed::LayerHistories;
use crate::recipes::{DelayedOptions, RecipeName, Settings};

/// One of the recipes, with its options.
#[derive(Debug)]
pub(crate) struct Configured {
    host: Host,
    name: RecipeName,
    options: Options,
    settings: Settings,
    gemms: Gemms,
    generation: Generation,
    /// Of every layer, in the order of creation; empty without delayed scaling.
    histories: Vec<(String, LayerHistories)>,
}

impl Configured {
    pub(crate) fn new(host: Host, name: RecipeName, options: &Options) -> Result<Self> {
        let settings = name.settings(options)?;
        Ok(Self {
            host,
            name,
            options: options.clone(),
            settings,
            gemms: settings.gemms(),
            generation: Generation::default(),
            histories: Vec::new(),
        })
    }

    fn delayed(&self) -> Option<&DelayedOptions> {
        match &self.settings {
            Settings::Delayed(options) => Some(options),
            _ => None,
        }
    }

    /// Makes the scales of `roles` anew from what all layers have noted: one reduction over the ranks, one update.
    fn update(&self, roles: &[Role]) -> Result<()> {
        let Some(options) = self.delayed() else { return Ok(()) };
        let slots =
            || self.histories.iter().flat_map(|(_, layer)| roles.iter().map(move |&role| (layer, role)));
        let noted = slots().map(|(layer, role)| layer.noted(role));
        let mut amaxes = noted.collect::<Result<Vec<f32>>>()?;
        if options.reduce_amax {
            self.host.reduce_amax(&mut amaxes);
        }
        for ((layer, role), amax) in slots().zip(amaxes) {
            layer.update(role, amax);
        }
        Ok(())
    }
}

impl Recipe for Configured {
    fn describe(&self) -> Value {
        let mut about = json!({
            "backend": "transformer-engine-hybrid",
            "recipe": self.name.as_str(),
            "options": self.options,
            "accumulation": "f32",
            "kernels_numerics_revision": NUMERICS_REVISION,
        });
        about.as_object_mut().expect("an object").extend(self.gemms.describe());
        about
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.gemms.decide(self.name.as_str(), self.settings.multiple(), layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let Decision { precision, reason, .. } = self.decide(layer);
        if precision == Precision::High {
            return Err(Error::invalid(reason));
        }
        let linear = ScaledLinear::new(self.host.clone(), layer, self.gemms, self.generation.clone());
        let Some(options) = self.delayed() else { return Ok(Box::new(linear)) };
        if self.histories.iter().any(|(name, _)| *name == layer.name) {
            return Err(Error::protocol(format!("layer `{}` was created before", layer.name)));
        }
        let histories = LayerHistories::new(options);
        self.histories.push((layer.name.clone(), histories.clone()));
        Ok(Box::new(linear.with_scales(Box::new(histories))))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::ForwardDone => self.update(&[Role::Input, Role::Weight]),
            Event::BackwardDone => self.update(&[Role::Gradient]),
            Event::WeightsChanged => {
                self.generation.advance();
                Ok(())
            }
        }
    }

    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::default();
        for (name, histories) in &self.histories {
            histories.save(name, &mut state);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        if self.delayed().is_none() {
            return state.expect_empty();
        }
        let known = |key: &str| self.histories.iter().any(|(name, _)| key.starts_with(&format!("{name}.")));
        if let Some(key) = state.0.keys().find(|key| !known(key)) {
            return Err(Error::invalid(format!("state `{key}` is of no layer that runs in FP8")));
        }
        self.histories.iter().try_for_each(|(name, histories)| histories.restore(name, state))
    }
}
