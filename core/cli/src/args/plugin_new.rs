//! The arguments of `fp8flow plugin new`.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum};

#[derive(Debug, Group)]
pub(crate) struct NewPluginArgs {
    /// The plugin's name, which its folder has too.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What to write it in.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) lang: PluginLanguage,
    /// Where to make the folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginLanguage {
    /// Rust, with the SDK's sources in the project.
    #[default]
    Rust,
    /// C, with the one header that it needs.
    C,
}
