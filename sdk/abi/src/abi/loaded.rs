//! A plugin's objects as the engine sees them: the traits of this crate again.
//!
//! Every error says which plugin, which layer and which call. Calls whose signature has no error (`decide`,
//! `memory`, …) return a harmless value when the border fails, and the failure is kept: every later call of the
//! backend's objects returns it, and [`Recipe::healthy`] does.

use std::sync::{Arc, OnceLock};

use abi_stable::std_types::{RSlice, RStr, RString};
use serde::de::DeserializeOwned;

use super::c::CLibrary;
use super::layout::{self, LoadError};
use super::lent::Lent;
use super::objects::{BackendBox, KernelsBox, LinearBox, PluginModuleRef, RecipeBox};
use super::wire::{
    self, BackwardCall, ForwardCall, Outcome, QuantizeCall, ScaledGemmCall, from_json, to_json,
};
use crate::{
    Backward, Counters, Decision, Error, ErrorKind, Event, Forward, Host, InputFormat, Kernels, LayerFacts,
    Linear, Manifest, Memory, Options, Precision, Quantize, Recipe, RecipeInfo, Result, ScaledGemm,
    StateDict,
};

/// The functions of an opened library.
#[derive(Clone)]
pub struct Library {
    functions: Functions,
    plugin: Arc<str>,
}

/// By which road the library came.
#[derive(Clone)]
enum Functions {
    Rust(PluginModuleRef),
    C(CLibrary),
}

impl Library {
    /// The functions behind the symbol that the manifest of the library names.
    ///
    /// # Safety
    /// `symbol` is that symbol's address, in a library that is never unloaded.
    pub unsafe fn from_symbol(
        symbol: *const (),
        manifest: &Manifest,
    ) -> std::result::Result<Self, LoadError> {
        let functions = match manifest.c_abi {
            // SAFETY: promised by the caller.
            None => Functions::Rust(unsafe { layout::functions(symbol) }?),
            // SAFETY: as above.
            Some(_) => Functions::C(unsafe { CLibrary::from_entry(symbol) }?),
        };
        Ok(Self { functions, plugin: manifest.name.as_str().into() })
    }

    /// [`crate::Backend::recipes`].
    pub fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        let site = self.site();
        match &self.functions {
            Functions::Rust(functions) => site.read("recipes", (functions.recipes())()),
            Functions::C(library) => library.recipes().map_err(|error| site.named("recipes", error)),
        }
    }

    /// [`crate::Backend::start`]: a backend of its own each time.
    pub fn start(&self, host: &Host) -> Result<LoadedBackend> {
        let site = self.site();
        let host = Lent::boxed(host, &self.plugin);
        let backend = site.call("start", || match &self.functions {
            Functions::Rust(functions) => (functions.start())(host),
            Functions::C(library) => library.start(host),
        })?;
        Ok(LoadedBackend { backend, site })
    }

    fn site(&self) -> Site {
        Site { plugin: self.plugin.clone(), layer: None, fault: Arc::default() }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

/// A started backend.
pub struct LoadedBackend {
    backend: BackendBox,
    site: Site,
}

impl LoadedBackend {
    /// [`crate::Backend::recipe`].
    pub fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let host = Lent::boxed(host, &self.site.plugin);
        let options = to_json(options)?;
        let recipe =
            self.site.call("recipe", || self.backend.recipe(host, RStr::from(name), options.as_rstr()))?;
        Ok(Box::new(LoadedRecipe { recipe, site: self.site.clone() }))
    }

    /// [`crate::Backend::kernels`].
    pub fn kernels(&self, host: &Host) -> Result<Option<Box<dyn Kernels>>> {
        let host = Lent::boxed(host, &self.site.plugin);
        let kernels = self.site.call("kernels", || self.backend.kernels(host))?;
        let site = self.site.clone();
        Ok(kernels.into_option().map(|kernels| Box::new(LoadedKernels { kernels, site }) as Box<dyn Kernels>))
    }
}

impl std::fmt::Debug for LoadedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedBackend").field("plugin", &self.site.plugin).finish_non_exhaustive()
    }
}

/// Who is called, and what went wrong there before.
#[derive(Clone)]
struct Site {
    plugin: Arc<str>,
    layer: Option<Arc<str>>,
    /// The first failure after which the backend's answers mean nothing; shared by all its objects.
    fault: Arc<OnceLock<Error>>,
}

impl Site {
    /// A call whose result is as it is.
    fn call<T>(&self, call: &str, body: impl FnOnce() -> Outcome<T>) -> Result<T> {
        self.healthy()?;
        wire::receive(body()).map_err(|error| {
            let error = self.named(call, error);
            if error.kind == ErrorKind::Panicked {
                self.keep(&error);
            }
            error
        })
    }

    /// JSON that a call returned.
    fn read<T: DeserializeOwned>(&self, call: &str, outcome: Outcome<RString>) -> Result<T> {
        wire::receive(outcome).and_then(|text| from_json(&text)).map_err(|error| self.named(call, error))
    }

    /// The same for a call that cannot fail by its signature: its failure is kept.
    fn read_or<T: DeserializeOwned>(
        &self,
        call: &str,
        body: impl FnOnce() -> Outcome<RString>,
        otherwise: impl FnOnce(&Error) -> T,
    ) -> T {
        match self.healthy().and_then(|()| self.read(call, body())) {
            Ok(value) => value,
            Err(error) => {
                self.keep(&error);
                otherwise(&error)
            }
        }
    }

    fn keep(&self, error: &Error) {
        // Only the first one counts.
        let _ = self.fault.set(error.clone());
    }

    fn healthy(&self) -> Result<()> {
        match self.fault.get() {
            None => Ok(()),
            Some(first) => Err(first.clone()),
        }
    }

    fn named(&self, call: &str, error: Error) -> Error {
        let layer = self.layer.as_ref().map(|layer| format!("{layer}: ")).unwrap_or_default();
        Error { message: format!("{}: {layer}{call}: {}", self.plugin, error.message), ..error }
    }
}

struct LoadedRecipe {
    recipe: RecipeBox,
    site: Site,
}

impl LoadedRecipe {
    fn at(&self, layer: &LayerFacts) -> Site {
        Site { layer: Some(layer.name.as_str().into()), ..self.site.clone() }
    }
}

impl Recipe for LoadedRecipe {
    fn describe(&self) -> serde_json::Value {
        self.site.read_or("describe", || self.recipe.describe(), |_| serde_json::Value::Null)
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        let ask = || match to_json(layer) {
            Ok(facts) => self.recipe.decide(facts.as_rstr()),
            Err(error) => wire::send(Err(error)),
        };
        self.at(layer).read_or("decide", ask, |error| Decision {
            precision: Precision::High,
            reason: error.message.clone(),
            fp8_gemms: [0; 3],
        })
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let site = self.at(layer);
        let facts = to_json(layer)?;
        let linear = site.call("linear", || self.recipe.linear(facts.as_rstr()))?;
        Ok(Box::new(LoadedLinear { linear, site }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        self.site.call("on", || self.recipe.on(wire::event_code(event)))
    }

    fn state(&self) -> Result<StateDict> {
        let bytes = self.site.call("state", || self.recipe.state())?;
        StateDict::from_safetensors(&bytes).map_err(|error| self.site.named("state", error))
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let bytes = state.to_safetensors()?;
        self.site.call("restore", || self.recipe.restore(RSlice::from(bytes.as_slice())))
    }

    fn healthy(&self) -> Result<()> {
        self.site.healthy()
    }
}

struct LoadedLinear {
    linear: LinearBox,
    site: Site,
}

impl Linear for LoadedLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.site.read_or("memory", || self.linear.memory(tokens), |_| Memory::default())
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.site.read_or("input_formats", || self.linear.input_formats(), |_| Vec::new())
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.site.call("forward", || self.linear.forward(ForwardCall::send(call)))
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        self.site.call("backward", || self.linear.backward(BackwardCall::send(call)))
    }

    fn counters(&self) -> Counters {
        self.site.read_or("counters", || self.linear.counters(), |_| Counters::default())
    }
}

struct LoadedKernels {
    kernels: KernelsBox,
    site: Site,
}

impl Kernels for LoadedKernels {
    fn quantize(&self, call: Quantize<'_>) -> Result<()> {
        self.site.call("quantize", || self.kernels.quantize(QuantizeCall::send(call)))
    }

    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()> {
        self.site.call("scaled_gemm", || self.kernels.scaled_gemm(ScaledGemmCall::send(call)))
    }
}
