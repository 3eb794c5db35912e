//! The objects on either side of the border, as vtables of a stable layout. Each mirrors a trait of this crate.
//!
//! A new method goes behind the last one of its trait (whose mark stays where it is) and has a default body; that
//! body runs where the other side is older.

// From what the macros of `abi_stable` expand to.
#![allow(non_local_definitions, clippy::used_underscore_binding, clippy::expl_impl_clone_on_copy)]

use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, ROption, RSlice, RSliceMut, RStr, RString, RVec};
use abi_stable::{StableAbi, sabi_trait};

use super::wire::{BackwardCall, ForwardCall, Outcome, QuantizeCall, ScaledGemmCall, Tasks};

/// [`crate::HostServices`].
pub type HostBox = HostObject_TO<'static, RBox<()>>;
/// [`crate::Backend`].
pub type BackendBox = BackendObject_TO<'static, RBox<()>>;
/// [`crate::Recipe`].
pub type RecipeBox = RecipeObject_TO<'static, RBox<()>>;
/// [`crate::Linear`].
pub type LinearBox = LinearObject_TO<'static, RBox<()>>;
/// [`crate::Kernels`].
pub type KernelsBox = KernelsObject_TO<'static, RBox<()>>;

/// What the engine lends.
#[sabi_trait]
pub trait HostObject: Send + Sync {
    /// Code of the instruction set.
    fn isa(&self) -> u32;
    /// Threads of a parallel loop.
    fn threads(&self) -> usize;
    /// A parallel loop.
    fn parallel_for(&self, tasks: usize, body: Tasks<'_>) -> Outcome<()>;
    /// Whether a line would be written.
    fn log_enabled(&self, level: u32, target: RStr<'_>) -> bool;
    /// Writes a line.
    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>);
    /// The maxima over all ranks.
    fn reduce_amax(&self, values: RSliceMut<'_, f32>) -> Outcome<()>;
    /// Whether the run should stop.
    #[sabi(last_prefix_field)]
    fn cancelled(&self) -> bool;
}

/// A started backend.
#[sabi_trait]
pub trait BackendObject: Send + Sync {
    /// A recipe by name, with options as JSON.
    fn recipe(&self, host: HostBox, name: RStr<'_>, options: RStr<'_>) -> Outcome<RecipeBox>;
    /// The primitives, where offered.
    #[sabi(last_prefix_field)]
    fn kernels(&self, host: HostBox) -> Outcome<ROption<KernelsBox>>;
}

/// A configured recipe.
#[sabi_trait]
pub trait RecipeObject: Send {
    /// The description as JSON.
    fn describe(&self) -> Outcome<RString>;
    /// A decision as JSON, from a layer's facts as JSON.
    fn decide(&self, layer: RStr<'_>) -> Outcome<RString>;
    /// A layer, from its facts as JSON.
    fn linear(&mut self, layer: RStr<'_>) -> Outcome<LinearBox>;
    /// An event by its code.
    fn on(&mut self, event: u32) -> Outcome<()>;
    /// The state in the format of safetensors.
    fn state(&self) -> Outcome<RVec<u8>>;
    /// Takes such a state back.
    #[sabi(last_prefix_field)]
    fn restore(&mut self, state: RSlice<'_, u8>) -> Outcome<()>;
}

/// A layer.
#[sabi_trait]
pub trait LinearObject: Send {
    /// The memory for so many tokens, as JSON.
    fn memory(&self, tokens: usize) -> Outcome<RString>;
    /// Operand formats as JSON.
    fn input_formats(&self) -> Outcome<RString>;
    /// Forward.
    fn forward(&mut self, call: ForwardCall<'_>) -> Outcome<()>;
    /// Backward.
    fn backward(&mut self, call: BackwardCall<'_>) -> Outcome<()>;
    /// Counters as JSON.
    #[sabi(last_prefix_field)]
    fn counters(&self) -> Outcome<RString>;
}

/// Primitives.
#[sabi_trait]
pub trait KernelsObject: Send + Sync {
    /// Casts.
    fn quantize(&self, call: QuantizeCall<'_>) -> Outcome<()>;
    /// Multiplies.
    #[sabi(last_prefix_field)]
    fn scaled_gemm(&self, call: ScaledGemmCall<'_>) -> Outcome<()>;
}

/// The functions of a library, behind the symbol that its manifest names. Later ones are optional.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef, prefix_fields = PluginModulePrefix)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// The recipes with their options, as JSON.
    pub recipes: extern "C" fn() -> Outcome<RString>,
    /// Starts the backend.
    #[sabi(last_prefix_field)]
    pub start: extern "C" fn(HostBox) -> Outcome<BackendBox>,
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "fp8flow_backend";
    const NAME: &'static str = "fp8flow backend";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}
