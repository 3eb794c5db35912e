//! `fp8flow run`: a workflow, from its beginning or from where it stopped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use fp8flow_flow::{Class, Crash, Error, Event, Held, Observer, Pins, Plan, Registry, Run, RunOptions};
use fp8flow_host::shell::quoted;
use fp8flow_stages::disk;

use super::planned;
use crate::args::{Common, RunArgs};
use crate::engine::Machine;
use crate::failure::{Failure, show_warnings};
use crate::human::Human;
use crate::run_text::near;
use crate::screen::Screen;
use crate::shown::{self, Exports};
use crate::signals;

pub(super) fn run(common: &Common, args: &RunArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_compute(common)?;
    let registry = fp8flow_stages::registry(&machine.engine);
    let plans = planned(&args.workflow, args.runs.as_deref(), &registry)?;
    let plans =
        plans.into_iter().map(|plan| of_stages(plan, args)).collect::<Result<Vec<Plan>, Failure>>()?;
    let stopping = "the current step is finished and saved";
    signals::listen(&machine.cancel, screen, stopping).map_err(|error| Failure::new(Class::Io, error))?;
    let mut failed = None;
    for plan in &plans {
        match one(plan, &registry, &machine, common, args, screen) {
            // Another point of the matrix may do better; nothing would, once it is stopped or has no room to write.
            Err(Failure::Engine(error)) if plans.len() > 1 && error.class() == Class::Failed => {
                let failure = Failure::Engine(error);
                failure.show(screen);
                failed = failed.or(Some(Failure::Said(Class::Failed)));
            }
            result => result?,
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What a plugin's crash leaves to be done, as a line.
pub(super) fn after_a_crash(common: &Common, args: &RunArgs) -> String {
    let mut command = format!("fp8flow run {}", quoted(&args.workflow.file.to_string_lossy()));
    let runs = args.runs.as_ref().map(|runs| ("--runs", runs.to_string_lossy().into_owned()));
    let set = args.workflow.set.iter().map(|set| ("--set", set.clone()));
    let point = args.workflow.point.iter().map(|point| ("--point", point.clone()));
    let places = common.plugin_path.iter().map(|path| ("--plugin-path", path.to_string_lossy().into_owned()));
    for (option, value) in set.chain(point).chain(runs).chain(places) {
        let _ = write!(command, " {option} {}", quoted(&value));
    }
    format!("what it had saved is kept: `{command}` goes on from there")
}

/// Runs one plan.
fn one(
    plan: &Plan,
    registry: &Registry,
    machine: &Machine,
    common: &Common,
    args: &RunArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    show_warnings(&plan.warnings, screen);
    machine.engine.take_place(plan).map_err(|error| Failure::new(Class::Missing, error))?;
    let binding = Machine::binding(plan);
    let lock = args.locked.then(|| Held::to(&Pins::path(plan), plan, registry, &binding));
    let options = RunOptions {
        threads: machine.threads(),
        from: args.from.clone(),
        held: lock.transpose()?,
        runs: args.runs.clone(),
        fresh: args.fresh,
        no_cache: args.no_cache,
        environment: machine.environment(plan),
        binding,
    };
    let runs = options.runs.clone().unwrap_or_else(|| plan.folder.join("runs"));
    if let Some(shortage) = disk::shortage(plan, registry, &options, &runs)? {
        let advice = "Make room, keep fewer checkpoints (`checkpoint.keep`), or name another folder.";
        return Err(Failure::new(Class::Io, shortage).help(advice));
    }
    let run = open(plan, &options, args.wait.then_some(&*machine.cancel), screen)?;
    let observer: Arc<dyn Observer> = if screen.json() {
        let screen = screen.clone();
        Arc::new(move |event: &Event| screen.print(event.line()))
    } else {
        Arc::new(Human::new(screen.clone(), common.quiet))
    };
    let folder = run.folder().to_owned();
    let exports = Exports::begin(&folder, &args.export);
    let _noted = fp8flow_host::crash::note(&Crash::path(&folder));
    let finished = run.execute(registry, observer, &machine.cancel);
    let page = shown::end(&folder, exports, screen);
    let finished = finished?;
    if !screen.json() && !common.quiet {
        if let Some(page) = page {
            screen.print(format!("the report is {}", near(&page)));
        }
        screen.print(format!("everything is in {}", finished.folder.display()));
    }
    Ok(())
}

/// The plan of the stages that are asked for, which must be there.
fn of_stages(plan: Plan, args: &RunArgs) -> Result<Plan, Failure> {
    let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    let help = format!("It has {}.", names.join(", "));
    let unknown = |stage: &str| Failure::usage(format!("the workflow has no stage `{stage}`"), help.clone());
    if let Some(stage) = args.from.as_ref().filter(|stage| plan.stage(stage).is_none()) {
        return Err(unknown(stage));
    }
    if args.only.is_empty() { Ok(plan) } else { plan.only(&args.only).map_err(|stage| unknown(&stage)) }
}

/// Opens the run. Where another process works on it, waits until that has ended, if `wait` is the flag that ends waiting.
fn open<'a>(
    plan: &'a Plan,
    options: &RunOptions,
    wait: Option<&AtomicBool>,
    screen: &Screen,
) -> Result<Run<'a>, Failure> {
    let mut said = false;
    loop {
        let (run, owner) = match (Run::open(plan, options.clone()), wait) {
            (Err(Error::InUse { run, owner }), Some(stop)) if !stop.load(Ordering::Relaxed) => (run, owner),
            (Err(Error::InUse { run, .. }), Some(_)) => {
                let message = format!("stopped while another process worked on {}", run.display());
                return Err(Failure::new(Class::Interrupted, message));
            }
            (opened, _) => return Ok(opened?),
        };
        if !said {
            let owner = owner.unwrap_or_else(|| "another process".into());
            screen.complain(format!("waiting for {owner}, which works on {}", run.display()));
            said = true;
        }
        sleep(Duration::from_millis(250));
    }
}
