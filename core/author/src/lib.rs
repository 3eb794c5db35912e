//! What the author of a backend needs from the binary: a project to begin with.
//!
//! ```
//! use fp8flow_author::{Language, Name, Project};
//!
//! let folder = std::env::temp_dir().join(format!("fp8flow-author-{}", std::process::id()));
//! let name: Name = "my-fp8".parse()?;
//! let project = Project::new(&name, Language::Rust).with("workflow.toml", b"# to train with it");
//! let written = project.write(&folder)?;
//! assert!(written.join("vendor/fp8flow/sdk/abi/src/lib.rs").exists());
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A project needs no network and no checkout of fp8flow: the SDK's sources travel in this crate, packed by its build
//! script, and are written into the project's `vendor` folder. The files of a project are real files under
//! `templates/`, a crate called `my-backend`, in which [`Project::new`] puts another name.
#![forbid(unsafe_code)]

mod error;
mod lock;
mod name;
mod project;
mod template;

pub use error::AuthorError;
pub use name::Name;
pub use project::Project;
pub use template::Language;

/// The sources of the SDK as they are written into a project, by path: a Cargo workspace.
pub const SDK: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
