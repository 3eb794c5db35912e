//! A backend as it is handed on: a folder with its library and a sidecar, `fp8flow-plugin.toml`, that says what the
//! library is and which bytes it has.
//!
//! [`pack`] makes one, [`install`] checks one and copies it into the user's folder, [`remove`] takes it away,
//! [`verify`] looks at what is installed. [`crate::Search`] finds packages in every place, and loads none whose library
//! is not the one that its sidecar names: a [`Package`] is what holds a library to it.

mod contents;
mod error;
mod folder;
mod install;
mod pack;
mod parse;
mod remove;
mod sidecar;
mod verify;
mod words;

pub use contents::Package;
pub use error::PackageError;
pub use install::{Installed, install};
pub use pack::pack;
pub use remove::{Removed, remove};
pub use sidecar::{LibraryFile, Sidecar};
pub use verify::{Verdict, verify};
pub use words::address;

/// The name of the sidecar.
pub const SIDECAR: &str = "fp8flow-plugin.toml";

/// The version of its format.
pub const MANIFEST: u32 = 1;
