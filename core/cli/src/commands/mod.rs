//! One file a command.

mod bench;
mod check;
mod diff;
mod doctor;
mod gc;
mod graph;
mod init;
mod lock;
mod logs;
mod metrics;
mod plan;
mod plugin;
mod report;
mod run;
mod runs;
mod schema;
mod status;
mod verify;

use std::path::Path;

use fp8flow_flow::{Plan, Registry, Workflow};

use crate::args::{Args, Command, Common, WorkflowArgs};
use crate::failure::Failure;
use crate::screen::Screen;

/// Does what `arguments` ask for.
pub(crate) fn execute(arguments: Args, screen: &Screen) -> Result<(), Failure> {
    let Args { common, command } = arguments;
    match command {
        Command::Run(args) => run::run(&common, &args, screen),
        Command::Runs(command) => runs::runs(&command, screen),
        Command::Status(args) => status::status(&args, screen),
        Command::Logs(args) => logs::logs(&common, &args, screen),
        Command::Metrics(args) => metrics::metrics(&args, screen),
        Command::Report(args) => report::report(&args, screen),
        Command::Verify(args) => verify::verify(&common, args, screen),
        Command::Diff(args) => diff::diff(&args, screen),
        Command::Check(args) => check::check(&common, &args, screen),
        Command::Plan(args) => plan::plan(&common, &args, screen),
        Command::Plugin(args) => plugin::plugin(&common, &args, screen),
        Command::Graph(args) => graph::graph(&common, &args, screen),
        Command::Lock(args) => lock::lock(&common, &args, screen),
        Command::Gc(args) => gc::gc(&args, screen),
        Command::Doctor(args) => doctor::doctor(&common, args, screen),
        Command::Bench(command) => bench::bench(&common, &command, screen),
        Command::Schema(args) => schema::schema(&common, &args, screen),
        Command::Init(args) => init::init(&common, &args, screen),
    }
}

/// What is said after a plugin has crashed the process in what `command` asks for, as a line or nothing.
pub(crate) fn after_a_crash(common: &Common, command: &Command) -> String {
    match command {
        Command::Run(args) => run::after_a_crash(common, args),
        _ => String::new(),
    }
}

/// The plans of the workflow that `args` name, whose runs are in `runs` if that is given: one, or one for each point of its
/// matrix.
fn planned(args: &WorkflowArgs, runs: Option<&Path>, registry: &Registry) -> Result<Vec<Plan>, Failure> {
    let workflow = Workflow::read(&args.file, &args.set)?.with_runs(runs);
    Ok(workflow.plans(registry, args.point.as_deref())?)
}
