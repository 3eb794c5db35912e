//! The arguments of `fp8flow plugin`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Every plugin in the places that are searched; no library is opened.
    List,
    /// All about one plugin: file, digest, recipes with their options.
    Show {
        /// Its name, or the path of its library.
        name: String,
    },
}
