//! `fp8flow lock`: pins what a workflow is made from and what came of it.

use fp8flow_flow::{Class, Error, Pins, Plan, Registry, RunOptions};
use serde_json::json;

use super::planned;
use crate::args::{Common, LockArgs};
use crate::engine::Machine;
use crate::failure::{Failure, show_warnings};
use crate::screen::Screen;

pub(super) fn lock(common: &Common, args: &LockArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    let registry = fp8flow_stages::registry(&machine.engine);
    for plan in planned(&args.workflow, args.runs.as_deref(), &registry)? {
        pin(&plan, &registry, args, screen)?;
    }
    Ok(())
}

fn pin(plan: &Plan, registry: &Registry, args: &LockArgs, screen: &Screen) -> Result<(), Failure> {
    show_warnings(&plan.warnings, screen);
    let (path, binding) = (Pins::path(plan), Machine::binding(plan));
    let options = RunOptions { runs: args.runs.clone(), binding: binding.clone(), ..RunOptions::default() };
    let made_by = concat!("fp8flow ", env!("CARGO_PKG_VERSION"));
    let now = Pins::of(plan, registry, &options, made_by)?;
    let (pins, updated) = match &args.update {
        None => (now, None),
        Some(stage) => {
            if plan.stage(stage).is_none() {
                return Err(Failure::new(Class::Invalid, format!("the workflow has no stage `{stage}`")));
            }
            let (pins, names) = Pins::read(&path)?.updated(&now, plan, stage);
            // Everything else must be as it was, or the lock would hold a run to what never came together.
            let mut differences = pins.differences(plan, registry, &binding);
            differences.extend(pins.other_results(&now));
            if !differences.is_empty() {
                return Err(Error::NotAsLocked { lock: path, differences }.into());
            }
            (pins, Some(names))
        }
    };
    pins.write(&path)?;
    if screen.json() {
        screen.print(json!({ "format": 1, "lock": path, "updated": updated }).to_string());
    } else {
        let what = updated
            .map_or("every stage is pinned".into(), |names| format!("pinned again: {}", names.join(", ")));
        screen.print(format!("{}: {what}", path.display()));
    }
    Ok(())
}
