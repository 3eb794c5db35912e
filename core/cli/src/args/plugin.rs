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
    /// Run the conformance suite on a plugin, in processes of its own, and say what to mend.
    Test {
        /// The path of its library, or its name.
        plugin: String,
        /// Seconds that one check may take.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        limit: u64,
    },
}
