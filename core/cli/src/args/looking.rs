//! The arguments of the commands that look at runs.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueEnum};
use fp8flow_report::Export;

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
    /// Write these files for other programs, into `logs/` in the run's folder.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_enum)]
    pub(crate) export: Vec<ExportKind>,
    /// Write them into this folder instead.
    #[arg(long, value_name = "DIR", requires = "export")]
    pub(crate) out: Option<PathBuf>,
    /// Go on writing them until the run ends.
    #[arg(short, long, requires = "export")]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) place: RunsArgs,
}

/// What other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportKind {
    /// An event file of TensorBoard.
    Tensorboard,
    /// `trainer_log.jsonl`, as LLaMA-Factory writes it.
    #[value(name = "trainer_log")]
    TrainerLog,
    /// `training_loss.svg`, the curves of the loss.
    Svg,
}

impl ExportKind {
    /// What these are in the report's words, each once.
    pub(crate) fn all(kinds: &[Self]) -> Vec<Export> {
        let mut all = Vec::new();
        for kind in kinds {
            let kind = match kind {
                Self::Tensorboard => Export::TensorBoard,
                Self::TrainerLog => Export::TrainerLog,
                Self::Svg => Export::Svg,
            };
            if !all.contains(&kind) {
                all.push(kind);
            }
        }
        all
    }
}

#[derive(Debug, Group)]
pub(crate) struct ReportArgs {
    /// The run: its id, the beginning of one, or its folder; the newest by default.
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Where to write it; `report.html` in the run's folder by default. What is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: RunsArgs,
}
