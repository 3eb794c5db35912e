//! The arguments of the command line.

mod bench;
mod looking;
mod plugin;
mod plugin_new;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args as Group, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub(crate) use looking::{ExportKind, LogsArgs, MetricsArgs, ReportArgs, RunsCommand, StatusArgs};
pub(crate) use plugin::{InstallArgs, PackArgs, PluginBenchArgs, PluginCommand};
pub(crate) use plugin_new::{NewPluginArgs, PluginLanguage};

pub(crate) use bench::{
    BenchAttentionArgs, BenchCommand, BenchModel, BenchPrecision, BenchRecompute, BenchSizes, BenchTrainArgs,
};

/// Fine-tunes language models in FP8 from a TOML workflow.
#[derive(Debug, Parser)]
#[command(name = "fp8flow", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads a command line; an error says what is wrong with it.
    pub(crate) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let args = Self::try_parse_from(words)?;
        match args.objection() {
            None => Ok(args),
            Some(objection) => Err(Self::command().error(ErrorKind::ArgumentConflict, objection)),
        }
    }

    /// What no attribute can say.
    fn objection(&self) -> Option<String> {
        let Command::Bench(bench) = &self.command else { return None };
        bench.objection()
    }
}

/// What every command takes.
#[derive(Clone, Debug, Default, Group)]
pub(crate) struct Common {
    /// Write JSON to stdout: events, one a line, or one object.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more: once for what happens, twice for details. FP8FLOW_LOG refines it (`fp8flow_host=debug`).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what matters: warnings, errors, the report.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Threads to compute with; all there are by default. The result is the same for any number.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// A folder of plugins, or a plugin's library, to look at first. May be given several times.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) plugin_path: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow, or go on with its newest unfinished run.
    Run(RunArgs),
    /// The runs of a folder.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Where a run stands, stage by stage.
    Status(StatusArgs),
    /// What happened in a run, or happens.
    Logs(LogsArgs),
    /// Loss, learning rate and speed of one run or of several, as a table, a plot, or the files of other programs.
    Metrics(MetricsArgs),
    /// A run as one page for a browser: proof, curves, digests, values.
    Report(ReportArgs),
    /// Run a finished run once more, beside it, and say whether every bit is the same.
    Verify(VerifyArgs),
    /// Hold two runs against each other: parameters, metrics, and the first step and tensor where they part.
    Diff(DiffArgs),
    /// Say everything that is wrong with a workflow; start nothing.
    Check(WorkflowArgs),
    /// Show what a workflow would do: stages, values, FP8 or not for every layer; start nothing.
    Plan(PlanArgs),
    /// Backend plugins: what is installed, and what it can do.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Draw the stages of a workflow as a graph.
    Graph(GraphArgs),
    /// Pin what a workflow is made from and what came of it: files, plugins, values, results.
    Lock(LockArgs),
    /// Make room in a folder of runs: old runs, and stored results that no run has any more.
    Gc(GcArgs),
    /// Whether this machine can run FP8, or a given workflow: processor, memory, disk, cards, plugins at work.
    Doctor(DoctorArgs),
    /// Measure this machine, and what GEMMs, casts and training steps make of it.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print the JSON Schema of workflows, or their reference.
    Schema(SchemaArgs),
    /// Write a workflow to begin with.
    Init(InitArgs),
}

/// A workflow with what is laid over it.
#[derive(Debug, Group)]
pub(crate) struct WorkflowArgs {
    /// The workflow's file.
    #[arg(value_name = "WORKFLOW")]
    pub(crate) file: PathBuf,
    /// Another value for a key: `--set stages.train.optimizer.lr=1e-4`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<String>,
    /// Of a workflow with a `[matrix]` only this point: `--point lr=1e-4`.
    #[arg(long, value_name = "NAME")]
    pub(crate) point: Option<String>,
}

/// An assignment with a key and `=`; the rest is read with the workflow.
fn assignment(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        None => Err("expected `key=value`, and there is no `=`"),
        Some((key, _)) if key.trim().is_empty() => {
            Err("expected `key=value`, and there is no key before `=`")
        }
        Some(_) => Ok(text.to_owned()),
    }
}

#[derive(Debug, Group)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Show only this stage: `--stage layers` says which layers run in FP8.
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// Say of every stage whether `run` would do it, and why: the key, file or stage that has changed.
    #[arg(long)]
    pub(crate) explain: bool,
    /// The same, and exit with 4 if there is work to do, with 0 if everything is there.
    #[arg(long)]
    pub(crate) check: bool,
    /// The folder of runs; `runs` beside the workflow by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// For what.
    #[arg(long, value_enum, default_value = "mermaid")]
    pub(crate) format: GraphFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Text that Markdown on many sites shows as a drawing.
    Mermaid,
    /// Graphviz.
    Dot,
    /// A drawing.
    Svg,
}

#[derive(Debug, Group)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Pin only this stage again, and those that are made from it; everything else must be as it is locked.
    #[arg(long, value_name = "STAGE")]
    pub(crate) update: Option<String>,
    /// The folder of runs; `runs` beside the workflow by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct GcArgs {
    /// The folder of runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Runs to keep of each workflow, the newest; all of them by default.
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<usize>,
    /// Only say what would be removed.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Group)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag of the command line")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// The folder of runs; `runs` beside the workflow by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
    /// Begin a run of its own even if there is an unfinished one, and do every stage.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Do every stage that the run has no result of, though another run's may be stored.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run only this stage, and take what it is made from as it is stored. May be given several times.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["fresh", "no_cache"])]
    pub(crate) only: Vec<String>,
    /// Do this stage and those that are made from it once more, in a run of their own; take the others as they are stored.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["fresh", "no_cache", "only"])]
    pub(crate) from: Option<String>,
    /// Hold the run to the workflow's lock (`workflow.lock`): refuse what differs before it starts, fail where a result does.
    #[arg(long)]
    pub(crate) locked: bool,
    /// Also write these files for other programs while it trains, into `logs/` in the run's folder.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_enum)]
    pub(crate) export: Vec<ExportKind>,
    /// Where another process works on the run, wait for it to end instead of giving up.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Group)]
pub(crate) struct VerifyArgs {
    /// The run: its folder, its id, or `latest`.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The folder that ids are looked for in.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: Option<PathBuf>,
    /// Only this stage.
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// Only the training steps after A up to B, from the checkpoint after A: `--window 500..520`.
    #[arg(long, value_name = "A..B", value_parser = window)]
    pub(crate) window: Option<(u64, u64)>,
}

/// Two steps, the first smaller.
fn window(text: &str) -> Result<(u64, u64), &'static str> {
    let numbers =
        text.split_once("..").and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match numbers {
        Some((a, b)) if a < b => Ok((a, b)),
        Some(_) => Err("the first step must be smaller than the second"),
        None => Err("expected two steps, as in `500..520`"),
    }
}

#[derive(Debug, Group)]
pub(crate) struct DiffArgs {
    /// A run: its folder, its id, or `latest`.
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The run that it is held against.
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// The folder that ids are looked for in.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct DoctorArgs {
    /// The workflow that should run here; without it, every plugin that is found must work.
    #[arg(long, value_name = "FILE")]
    pub(crate) workflow: Option<PathBuf>,
    /// Another value for a key of the workflow: `--set stages.train.steps=10`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment, requires = "workflow")]
    pub(crate) set: Vec<String>,
    /// The folder of runs; `runs` beside the workflow by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct SchemaArgs {
    /// Only this kind of stage, such as `train.sft`.
    #[arg(long, value_name = "KIND")]
    pub(crate) stage: Option<String>,
    /// As what.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: SchemaFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaFormat {
    /// JSON Schema, draft 4, for editors.
    #[default]
    Json,
    /// The reference pages.
    Markdown,
    /// For the terminal.
    Text,
    /// The page on what goes with what: recipes, devices, features.
    Support,
}

#[derive(Debug, Group)]
pub(crate) struct InitArgs {
    /// The folder to write into.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// What to begin with.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) template: Template,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// Fine-tune a Hugging Face folder on a dataset of yours.
    #[default]
    Sft,
    /// Train a small model from scratch, its data included: runs at once.
    Quickstart,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn common_arguments_stand_before_or_after_the_command() {
        for line in ["fp8flow --json --threads 2 run w.toml", "fp8flow run w.toml --threads 2 --json"] {
            let args = Args::try_parse_from(line.split(' ')).expect("it is well formed");
            assert!(args.common.json);
            assert_eq!(args.common.threads, Some(2));
        }
        let refused =
            Args::try_parse_from("fp8flow run w.toml --threads 0".split(' ')).expect_err("no thread");
        assert_eq!(refused.exit_code(), 2);
    }

    #[test]
    fn a_shape_is_whole_and_nothing_has_no_recipe() {
        for line in [
            "fp8flow bench gemm --m 8 --k 8",
            "fp8flow bench gemm --n 8",
            "fp8flow bench gemm --m 0 --k 8 --n 8",
            "fp8flow bench cast --k 8",
            "fp8flow bench cast --m 8 --k 8 --n 8",
            "fp8flow bench train --sequence 1",
            "fp8flow bench train --backend none --recipe rowwise",
            "fp8flow bench",
        ] {
            let refused = Args::read(line.split(' ')).expect_err(line);
            assert_eq!(refused.exit_code(), 2, "{line}");
        }
        Args::read("fp8flow bench gemm --m 8 --k 8 --n 8 --backend none".split(' ')).expect("it is whole");
    }
}
