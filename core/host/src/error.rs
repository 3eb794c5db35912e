//! What can go wrong between a plugin's name and its first call.

use std::path::PathBuf;

use fp8flow_sdk::abi::LoadError;
use fp8flow_sdk::manifest::Mismatch;

use crate::elf::NotAPlugin;
use crate::package::{PackageError, SIDECAR};
use crate::probe::ProbeFailure;
use crate::similar::suggestion;
use crate::{Digest, Place, Trace};

/// A plugin that cannot be used. Each door has its own variant; messages end with what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No place has it.
    #[error(
        "no plugin `{name}` was found{}\nplaces searched, in this order:\n{trace}\n\
         install it with `fp8flow plugin install FILE`, or name the library or its folder with --plugin-path or \
         FP8FLOW_PLUGIN_PATH; `cargo build --release` in the sources of fp8flow builds the plugins that come with it",
        suggestion(.similar.as_deref())
    )]
    NotFound {
        /// What was asked for.
        name: String,
        /// A plugin of a similar name, if one was seen.
        similar: Option<String>,
        /// Where, and what was there.
        trace: Trace,
    },
    /// No plugin in any place has the recipe, and fits.
    #[error(
        "no plugin with a recipe `{recipe}` was found{}\nplaces searched, in this order:\n{trace}",
        suggestion(.similar.as_deref())
    )]
    NoSuchRecipe {
        /// What was asked for.
        recipe: String,
        /// A recipe of a similar name, if one was seen.
        similar: Option<String>,
        /// Where, and what was there.
        trace: Trace,
    },
    /// Several plugins in one place have the recipe.
    #[error("several plugins in {place} have a recipe `{recipe}`: {plugins}; name the one that is meant")]
    Undecided {
        /// What was asked for.
        recipe: String,
        /// Where they are.
        place: Place,
        /// Their names, quoted.
        plugins: String,
    },
    /// One place has two.
    #[error(
        "two different plugins are called `{name}` in {place}:\n  {}\n  {}\nremove one of them, or give the path of the one \
         that is meant",
        .files.0.display(), .files.1.display()
    )]
    Ambiguous {
        /// Their name.
        name: String,
        /// Where both are.
        place: Place,
        /// Their files.
        files: Box<(PathBuf, PathBuf)>,
    },
    /// The file that was named is no plugin.
    #[error("{}: {source}", .path.display())]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NotAPlugin,
    },
    /// The handshake failed.
    #[error("plugin `{plugin}` ({}) is {mismatch}", .path.display())]
    Mismatch {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// What does not fit.
        mismatch: Mismatch,
    },
    /// It is another file than the one that was pinned.
    #[error(
        "plugin `{plugin}` ({}) has digest {found}, but {pinned} is pinned; use the library that was pinned, or pin this one",
        .path.display()
    )]
    Pinned {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// The digest that was expected.
        pinned: Box<Digest>,
        /// The digest of the file.
        found: Box<Digest>,
    },
    /// The library of a package is not the one that its sidecar names.
    #[error(
        "plugin `{plugin}` ({}) was altered: it has digest {found}, and its {SIDECAR} says {stated}; get the package again and \
         install it with `fp8flow plugin install PACKAGE --replace`, or take it away with `fp8flow plugin remove {plugin}`",
        .path.display()
    )]
    Altered {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// The digest in the sidecar.
        stated: Box<Digest>,
        /// The digest of the file.
        found: Box<Digest>,
    },
    /// A package cannot be used, made, installed or removed.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A child process survived the plugin, and says what is wrong with it.
    #[error("{0}")]
    Objection(String),
    /// The file was written to after it had been found.
    #[error("plugin `{plugin}` ({}) changed while it was being loaded; try again", .path.display())]
    Changed {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
    },
    /// It did not survive being opened and started in a process of its own.
    #[error("plugin `{plugin}` ({}) is not loaded, because {failure}", .path.display())]
    Probe {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// What happened to that process.
        failure: Box<ProbeFailure>,
    },
    /// Opening it has switched how this process computes.
    #[error(
        "plugin `{plugin}` ({}) switches how the whole process computes when it is opened (subnormal numbers to zero, or another \
         rounding), and every result with it: link it without -ffast-math",
        .path.display()
    )]
    Arithmetic {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
    },
    /// The dynamic linker refused it.
    #[error("plugin `{plugin}` ({}) cannot be opened: {message}", .path.display())]
    Open {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// The linker's words.
        message: String,
    },
    /// Its functions cannot be called.
    #[error("plugin `{plugin}` ({}) cannot be used: {source}; rebuild the plugin", .path.display())]
    Load {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: LoadError,
    },
    /// Its recipes are not what its manifest says, or contradict themselves.
    #[error("plugin `{plugin}` ({}) contradicts itself: {message}; this is a bug of the plugin", .path.display())]
    Recipes {
        /// Its name.
        plugin: String,
        /// Its file.
        path: PathBuf,
        /// The contradiction.
        message: String,
    },
    /// It has no such recipe.
    #[error("plugin `{plugin}` has no recipe `{recipe}`{}; it has {known}", suggestion(.similar.as_deref()))]
    UnknownRecipe {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        recipe: String,
        /// The recipe that was probably meant.
        similar: Option<String>,
        /// The recipes it has, quoted.
        known: String,
    },
    /// A call into the plugin failed.
    #[error(transparent)]
    Call(#[from] fp8flow_sdk::Error),
}
