//! The border between engine and plugin: how the calls of this crate's traits pass from one compiler's world to the
//! other's. Private: authors see the traits, the engine sees [`Library`]; both may change compilers at will.
//!
//! ```text
//! the plugin's library                                            the engine
//! impl Backend ─► export::Exported… ─► objects (stable vtables) ─► loaded::Loaded… ─► dyn Recipe, dyn Linear
//! Host ◄─ engine::Engine ◄───────────── objects::HostObject ◄───── lent::Lent ◄────── Host
//! ```
//!
//! * **What crosses.** Tensors as [`crate::tensor::RawTensor`], memory as pointer and length, whatever describes as
//!   JSON text, failures as a code with two texts. `abi_stable` gives the layouts and lets each side free its own.
//! * **Panics.** Neither side unwinds into the other. `guard` turns a plugin's panic into an error and keeps the
//!   plugin from being called again; a panic in a task on the engine's threads is carried back to the call it
//!   belongs to.
//! * **C.** Plugins in C come by a header of plain structs; [`c`] dresses them as the same objects.
//! * **Growth.** New methods go behind the last one, with a default body; fields of a root module are optional; plain
//!   structs never change; codes are integers, and an unknown one is an error, or nothing, never a guess.
//!   [`layout`] checks both ways, so that an older plugin runs in a newer engine.

// Vtables, borrowed memory and calls through function pointers are what this module is made of.
#![allow(unsafe_code)]

pub mod c;
pub mod engine;
pub mod export;
mod guard;
pub mod layout;
mod lent;
mod loaded;
mod log;
pub mod objects;
pub mod wire;

pub use layout::LoadError;
pub use loaded::{Library, LoadedBackend};

/// What [`crate::export_backend!`] needs of the mechanism.
pub use abi_stable::library::LibHeader;

/// Makes a type that implements [`crate::Backend`] the backend of this library, which must be a `cdylib`.
///
/// ```
/// use fp8flow_sdk::{Backend, Error, Host, Options, Recipe, RecipeInfo, Result};
///
/// struct MyBackend;
///
/// impl Backend for MyBackend {
///     fn start(host: &Host) -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn recipes() -> Vec<RecipeInfo> {
///         vec![RecipeInfo { name: "mine".into(), about: "What it does.".into(), options: Vec::new() }]
///     }
///
///     fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
///         Err(Error::unsupported("yet to be written"))
///     }
/// }
///
/// fp8flow_sdk::export_backend!(MyBackend, recipes = ["mine"]);
/// ```
///
/// `recipes` are the names that `Backend::recipes` returns: they stand in the library's manifest, so that recipes can be
/// listed without running its code. Further, optional and in this order: `name = "…"` (else the crate's),
/// `devices = ["…"]` (else the CPU), and `requires = ["…"]`, the [features](crate::manifest::FEATURES) of the engine that
/// the plugin cannot do without.
#[macro_export]
macro_rules! export_backend {
    (
        $backend:ty,
        recipes = [$($recipe:expr),* $(,)?]
        $(, name = $name:expr)?
        $(, devices = [$($device:expr),* $(,)?])?
        $(, requires = [$($feature:expr),* $(,)?])?
        $(,)?
    ) => {
        const _: () = {
            const FACTS: $crate::manifest::Facts = $crate::manifest::Facts {
                name: $crate::export_backend!(@or $($name)? ; ::core::env!("CARGO_PKG_NAME")),
                version: ::core::env!("CARGO_PKG_VERSION"),
                about: ::core::env!("CARGO_PKG_DESCRIPTION"),
                license: ::core::env!("CARGO_PKG_LICENSE"),
                unwinds: ::core::cfg!(panic = "unwind"),
                requires: &[$($($feature),*)?],
                recipes: &[$($recipe),*],
                devices: $crate::export_backend!(@or $(&[$($device),*])? ; &["cpu"]),
                crate_name: ::core::env!("CARGO_CRATE_NAME"),
            };

            #[unsafe(export_name = concat!("fp8flow_backend_", env!("CARGO_CRATE_NAME")))]
            static HEADER: $crate::abi::LibHeader = $crate::abi::export::header::<$backend>();

            #[used]
            #[unsafe(link_section = ".fp8flow")]
            static MANIFEST: [u8; $crate::manifest::embedded_len(&FACTS)] = $crate::manifest::embed(&FACTS);
        };
    };
    (@or ; $default:expr) => { $default };
    (@or $given:expr ; $default:expr) => { $given };
}
