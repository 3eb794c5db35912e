//! The arguments of the commands that look at runs.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Every run with its standing, the newest last.
    List(RunsArgs),
}

/// Where the runs are.
#[derive(Debug, Group)]
pub(crate) struct RunsArgs {
    /// The folder of runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
}

#[derive(Debug, Group)]
pub(crate) struct StatusArgs {
    /// The run: its id, the beginning of one, or its folder; the newest by default.
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) place: RunsArgs,
}

#[derive(Debug, Group)]
pub(crate) struct LogsArgs {
    /// The run: its id, the beginning of one, or its folder; the newest by default.
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Go on as things happen, until the run ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what this stage says.
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    #[command(flatten)]
    pub(crate) place: RunsArgs,
}

#[derive(Debug, Group)]
pub(crate) struct MetricsArgs {
    /// The runs, side by side: ids, beginnings of them, or folders.
    #[arg(value_name = "RUN", required = true)]
    pub(crate) run: Vec<String>,
    /// Write the curves of the loss to this file, an SVG; what is there is replaced.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Only this training stage.
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    #[command(flatten)]
    pub(crate) place: RunsArgs,
}
