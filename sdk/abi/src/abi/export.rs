//! The author's types, dressed for the border.

use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RSlice, RStr, RString, RVec};
use std::sync::Arc;

use super::engine::Engine;
use super::guard::{Guarded, Poison};
use super::log;
use super::objects::{
    BackendBox, BackendObject, BackendObject_TO, HostBox, KernelsBox, KernelsObject, KernelsObject_TO,
    LinearBox, LinearObject, LinearObject_TO, PluginModule, PluginModuleRef, RecipeBox, RecipeObject,
    RecipeObject_TO,
};
use super::wire::{
    self, BackwardCall, ForwardCall, Outcome, QuantizeCall, ScaledGemmCall, from_json, send, to_json,
};
use crate::{Backend, Host, Kernels, Linear, Recipe, StateDict};

/// What a library exports for backend `B`.
pub const fn header<B: Backend>() -> LibHeader {
    // SAFETY: `module` returns the reference of a `PluginModuleRef`.
    unsafe { LibHeader::from_constructor::<PluginModuleRef>(module::<B>, CheckTypeLayout::Yes) }
}

extern "C" fn module<B: Backend>() -> RootModuleResult {
    fn functions<B: Backend>() -> PluginModuleRef {
        PluginModule { recipes: recipes::<B>, start: start::<B> }.leak_into_prefix()
    }
    __call_root_module_loader(functions::<B>)
}

extern "C" fn recipes<B: Backend>() -> Outcome<RString> {
    send(Poison::default().contain("recipes", || to_json(&B::recipes())))
}

extern "C" fn start<B: Backend>(host: HostBox) -> Outcome<BackendBox> {
    let poison = Poison::default();
    send(poison.contain("start", || {
        let host = receive_host(host);
        log::forward_to(&host);
        let backend = Guarded::new(B::start(&host)?, poison.clone());
        Ok(BackendObject_TO::from_value(ExportedBackend(backend), TD_Opaque))
    }))
}

/// The engine behind a host that has crossed.
pub(super) fn receive_host(host: HostBox) -> Host {
    Host::new(Arc::new(Engine::new(host)))
}

/// A recipe as an object, with a guard of its own.
pub(super) fn recipe(recipe: Box<dyn Recipe>) -> RecipeBox {
    guarded_recipe(recipe, Poison::default())
}

/// Primitives as an object, with a guard of their own.
pub(super) fn kernels(kernels: Box<dyn Kernels>) -> KernelsBox {
    guarded_kernels(kernels, Poison::default())
}

fn guarded_recipe(recipe: Box<dyn Recipe>, poison: Poison) -> RecipeBox {
    RecipeObject_TO::from_value(ExportedRecipe(Guarded::new(recipe, poison)), TD_Opaque)
}

fn guarded_kernels(kernels: Box<dyn Kernels>, poison: Poison) -> KernelsBox {
    KernelsObject_TO::from_value(ExportedKernels(Guarded::new(kernels, poison)), TD_Opaque)
}

struct ExportedBackend<B>(Guarded<B>);

impl<B: Backend> BackendObject for ExportedBackend<B> {
    fn recipe(&self, host: HostBox, name: RStr<'_>, options: RStr<'_>) -> Outcome<RecipeBox> {
        send(self.0.call("recipe", |backend| {
            let recipe = backend.recipe(&receive_host(host), name.as_str(), &from_json(options.as_str())?)?;
            Ok(guarded_recipe(recipe, self.0.poison().clone()))
        }))
    }

    fn kernels(&self, host: HostBox) -> Outcome<ROption<KernelsBox>> {
        send(self.0.call("kernels", |backend| {
            let kernels = backend.kernels(&receive_host(host));
            Ok(kernels.map(|kernels| guarded_kernels(kernels, self.0.poison().clone())).into())
        }))
    }
}

struct ExportedRecipe(Guarded<Box<dyn Recipe>>);

impl RecipeObject for ExportedRecipe {
    fn describe(&self) -> Outcome<RString> {
        send(self.0.call("describe", |recipe| to_json(&recipe.describe())))
    }

    fn decide(&self, layer: RStr<'_>) -> Outcome<RString> {
        send(self.0.call("decide", |recipe| to_json(&recipe.decide(&from_json(layer.as_str())?))))
    }

    fn linear(&mut self, layer: RStr<'_>) -> Outcome<LinearBox> {
        let poison = self.0.poison().clone();
        send(self.0.call_mut("linear", |recipe| {
            let linear = Guarded::new(recipe.linear(&from_json(layer.as_str())?)?, poison);
            Ok(LinearObject_TO::from_value(ExportedLinear(linear), TD_Opaque))
        }))
    }

    fn on(&mut self, event: u32) -> Outcome<()> {
        send(self.0.call_mut("on", |recipe| wire::event(event).map_or(Ok(()), |event| recipe.on(event))))
    }

    fn state(&self) -> Outcome<RVec<u8>> {
        send(self.0.call("state", |recipe| Ok(recipe.state()?.to_safetensors()?.into())))
    }

    fn restore(&mut self, state: RSlice<'_, u8>) -> Outcome<()> {
        send(
            self.0.call_mut("restore", |recipe| {
                recipe.restore(&StateDict::from_safetensors(state.as_slice())?)
            }),
        )
    }
}

struct ExportedLinear(Guarded<Box<dyn Linear>>);

impl LinearObject for ExportedLinear {
    fn memory(&self, tokens: usize) -> Outcome<RString> {
        send(self.0.call("memory", |linear| to_json(&linear.memory(tokens))))
    }

    fn input_formats(&self) -> Outcome<RString> {
        send(self.0.call("input_formats", |linear| to_json(&linear.input_formats())))
    }

    fn forward(&mut self, call: ForwardCall<'_>) -> Outcome<()> {
        // SAFETY: the engine has borrowed the tensors for the length of this call.
        send(self.0.call_mut("forward", |linear| linear.forward(unsafe { call.receive() }?)))
    }

    fn backward(&mut self, call: BackwardCall<'_>) -> Outcome<()> {
        // SAFETY: as above.
        send(self.0.call_mut("backward", |linear| linear.backward(unsafe { call.receive() })))
    }

    fn counters(&self) -> Outcome<RString> {
        send(self.0.call("counters", |linear| to_json(&linear.counters())))
    }
}

struct ExportedKernels(Guarded<Box<dyn Kernels>>);

impl KernelsObject for ExportedKernels {
    fn quantize(&self, call: QuantizeCall<'_>) -> Outcome<()> {
        // SAFETY: the engine has borrowed the tensors for the length of this call.
        send(self.0.call("quantize", |kernels| kernels.quantize(unsafe { call.receive() }?)))
    }

    fn scaled_gemm(&self, call: ScaledGemmCall<'_>) -> Outcome<()> {
        // SAFETY: as above.
        send(self.0.call("scaled_gemm", |kernels| kernels.scaled_gemm(unsafe { call.receive() })))
    }
}
