//! What a plugin hands out, with every call known to [`crate::crash`] while it lasts.

#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use fp8flow_sdk::{
    Backward, Counters, Decision, Event, Forward, InputFormat, Kernels, LayerFacts, Linear, Memory, Quantize,
    Recipe, Result, ScaledGemm, StateDict,
};

use crate::crash::{self, Call, Subject};

/// An object of a plugin's; it is dropped as a call, too.
pub(crate) struct Watched<T> {
    object: ManuallyDrop<T>,
    plugin: Arc<Subject>,
    /// The layer that it belongs to, or nothing.
    layer: Box<str>,
}

impl<T> Watched<T> {
    pub(crate) fn new(object: T, plugin: Arc<Subject>, layer: &str) -> Self {
        Self { object: ManuallyDrop::new(object), plugin, layer: layer.into() }
    }

    #[inline]
    pub(crate) fn call<R>(&self, name: &'static str, body: impl FnOnce(&T) -> R) -> R {
        crash::during(&self.plugin, &self.layer, name, || body(&self.object))
    }

    #[inline]
    fn call_mut<R>(&mut self, name: &'static str, body: impl FnOnce(&mut T) -> R) -> R {
        let Self { object, plugin, layer } = self;
        crash::during(plugin, layer, name, || body(object))
    }

    pub(crate) fn plugin(&self) -> Arc<Subject> {
        Arc::clone(&self.plugin)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        let Self { object, plugin, layer } = self;
        // SAFETY: dropped here only, and never used afterwards.
        crash::during(plugin, layer, "drop", || unsafe { ManuallyDrop::drop(object) });
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

impl Recipe for Watched<Box<dyn Recipe>> {
    fn describe(&self) -> serde_json::Value {
        self.call("describe", |recipe| recipe.describe())
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        crash::during(&self.plugin, &layer.name, "decide", || self.object.decide(layer))
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let Self { object, plugin, .. } = self;
        let linear = crash::during(plugin, &layer.name, "linear", || object.linear(layer))?;
        Ok(Box::new(Watched::new(linear, Arc::clone(plugin), &layer.name)))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        self.call_mut("on", |recipe| recipe.on(event))
    }

    fn state(&self) -> Result<StateDict> {
        self.call("state", |recipe| recipe.state())
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        self.call_mut("restore", |recipe| recipe.restore(state))
    }

    fn healthy(&self) -> Result<()> {
        self.object.healthy()
    }
}

impl Linear for Watched<Box<dyn Linear>> {
    fn memory(&self, tokens: usize) -> Memory {
        self.call("memory", |linear| linear.memory(tokens))
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.call("input_formats", |linear| linear.input_formats())
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        // Without a closure: what is moved into one is copied.
        let here = Call::new(&self.plugin, &self.layer, "forward");
        let _entered = here.enter();
        self.object.forward(call)
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let here = Call::new(&self.plugin, &self.layer, "backward");
        let _entered = here.enter();
        self.object.backward(call)
    }

    fn counters(&self) -> Counters {
        self.call("counters", |linear| linear.counters())
    }
}

impl Kernels for Watched<Box<dyn Kernels>> {
    fn quantize(&self, call: Quantize<'_>) -> Result<()> {
        self.call("quantize", |kernels| kernels.quantize(call))
    }

    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()> {
        self.call("scaled_gemm", |kernels| kernels.scaled_gemm(call))
    }
}
