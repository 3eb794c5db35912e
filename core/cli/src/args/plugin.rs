//! The arguments of `fp8flow plugin`.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

use super::bench::dimension;
use super::plugin_new::NewPluginArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Write a project to begin a plugin with: it builds, passes the conformance suite and trains at once.
    New(NewPluginArgs),
    /// Every plugin in the places that are searched; no library is opened.
    List,
    /// All about one plugin: file, digest, recipes with their options.
    Show {
        /// Its name, or the path of its library or package.
        name: String,
    },
    /// Run the conformance suite on a plugin, in processes of its own, and say what to mend.
    Test {
        /// The path of its library, or its name.
        plugin: String,
        /// Where its layers work: cpu, cuda or cuda:N with the number of an NVIDIA card.
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// Seconds that one check may take.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        limit: u64,
    },
    /// Measure a plugin's recipes beside those of the shipped plugins, on the same layers.
    Bench(PluginBenchArgs),
    /// Install a plugin for yourself: checked, tried in a process of its own, and held to its bytes from then on.
    Install(InstallArgs),
    /// Take an installed plugin away.
    Remove {
        /// Its name.
        name: String,
    },
    /// Whether plugins are still what was installed, and open and start: all that you have installed, or these.
    Verify {
        /// Names, or paths of libraries or packages.
        #[arg(value_name = "NAME|PATH")]
        names: Vec<String>,
    },
    /// Make a package of a plugin's library, to hand it on: a folder with the library and `fp8flow-plugin.toml`.
    Pack(PackArgs),
}

#[derive(Debug, Group)]
pub(crate) struct PluginBenchArgs {
    /// The path of its library, or its name.
    pub(crate) plugin: String,
    /// One of its recipes; all of them by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Another plugin to measure beside it. May be given several times; by default those that come with fp8flow.
    #[arg(long, value_name = "NAME")]
    pub(crate) beside: Vec<String>,
    /// Rows of the input; with --k and --n one shape instead of the usual ones.
    #[arg(long, requires_all = ["k", "n"], value_parser = dimension())]
    pub(crate) m: Option<u32>,
    /// Columns of the input.
    #[arg(long, requires_all = ["m", "n"], value_parser = dimension())]
    pub(crate) k: Option<u32>,
    /// Columns of the output.
    #[arg(long, requires_all = ["m", "k"], value_parser = dimension())]
    pub(crate) n: Option<u32>,
    /// Repeats of each case; by default as many as half a second takes, and at least 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct InstallArgs {
    /// A plugin's library, or the folder of a package.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// Take the place of another plugin of the same name that is installed.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Group)]
pub(crate) struct PackArgs {
    /// The plugin's library.
    #[arg(value_name = "LIBRARY")]
    pub(crate) path: PathBuf,
    /// A page that says more about the plugin.
    #[arg(long, value_name = "URL", value_parser = address)]
    pub(crate) homepage: Option<String>,
    /// The folder that the package's own folder, NAME-VERSION, is made in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
}

fn address(text: &str) -> Result<String, String> {
    fp8flow_host::package::address(text).map(|()| text.to_owned())
}
