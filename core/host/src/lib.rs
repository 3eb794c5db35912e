//! Finds, checks and loads backend plugins; the safe Rust face of the ABI.
//!
//! ```no_run
//! use std::sync::{Arc, atomic::AtomicBool};
//! use fp8flow_host::{Pool, Search, Services, check_options};
//!
//! fp8flow_host::probe::run_if_child(); // first thing in `main`
//! let pool = Arc::new(Pool::new(4)?);
//! let host = Services::new(fp8flow_kernels::Isa::best(), pool, Arc::new(AtomicBool::new(false))).host();
//!
//! let plugin = Search::new(&[], &[]).find("torchao-rowwise")?.open(&host)?;
//! let options = check_options(plugin.recipe_info("rowwise")?, &serde_json::Map::new()).unwrap();
//! let recipe = plugin.recipe("rowwise", &options)?; // used as if its crate were linked
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The doors
//!
//! A plugin is code. Between its name in a workflow and the first call stand, in this order, each with an error of its
//! own:
//!
//! 1. [`Search`]: the configured places in their order, and nowhere else; every place passed over is remembered with the
//!    reason ([`Trace`]);
//! 2. [`elf`]: a whole ELF library for this machine with a manifest in it, read without opening the library;
//! 3. the handshake: SDK version, panic strategy, target and features in the manifest;
//! 4. the [`Digest`]: recorded always, enforced where a sidecar names it ([`package`]) and where it is pinned
//!    ([`Found::pin`]);
//! 5. the [`probe`]: a file never seen before is opened and started in a child process first, for it may crash; what the
//!    child saw is remembered by digest;
//! 6. the load: by a handle of our own, never unloaded, the layout compared in both directions.
//!
//! [`machine`] is the other side of "can it run here": processor, memory, disk and cards, as facts without a judgement.
//!
//! [`package`] is how plugins come and go: installed, verified, removed, handed on. [`crash`] names the call in which one has
//! taken the process with it.
//!
//! Behind the last door [`Plugin`] gives the traits of `fp8flow-sdk`. What the engine lends in return is here too:
//! [`Pool`] and [`Services`].

mod arithmetic;
mod callsite;
pub mod crash;
mod digest;
pub mod elf;
mod error;
mod found;
mod library;
pub mod machine;
mod options;
pub mod package;
mod place;
mod plugin;
mod pool;
pub mod probe;
pub mod program;
mod search;
mod seen;
mod services;
pub mod shell;
mod show;
mod similar;
mod watched;

pub use digest::Digest;
pub use error::HostError;
pub use found::Found;
pub use options::{OptionError, OptionProblem, check_options};
pub use place::{Origin, Place, Step, Trace};
pub use plugin::Plugin;
pub use pool::Pool;
pub use search::{Listed, Listing, SHIPPED, Search, user_folder};
pub use services::Services;
pub use show::Shown;
