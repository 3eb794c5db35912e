//! `fp8flow plan`: what a workflow would do.

use fp8flow_flow::{Class, Plan, Registry, RunOptions, State, explain};
use serde_json::{Value, json};

use super::planned;
use crate::args::{Common, PlanArgs};
use crate::engine::Machine;
use crate::explain_text;
use crate::failure::{Failure, show_warnings};
use crate::plan_text;
use crate::screen::Screen;

pub(super) fn plan(common: &Common, args: &PlanArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    let registry = fp8flow_stages::registry(&machine.engine);
    let (mut needed, mut told) = (false, Vec::new());
    for plan in planned(&args.workflow, args.runs.as_deref(), &registry)? {
        let (work, object) = one(&plan, &registry, args, screen)?;
        needed |= work;
        told.extend(object);
    }
    if let (true, [object]) = (screen.json(), &told[..]) {
        screen.print(object.to_string());
    } else if screen.json() {
        screen.print(json!({ "format": 1, "points": told }).to_string());
    }
    if args.check && needed { Err(Failure::WorkNeeded) } else { Ok(()) }
}

/// Shows one plan, or what `--json` says of it; and whether there is anything to do, where that is asked.
fn one(
    plan: &Plan,
    registry: &Registry,
    args: &PlanArgs,
    screen: &Screen,
) -> Result<(bool, Option<Value>), Failure> {
    let only = args.stage.as_deref();
    if let Some(name) = only
        && !plan.stages.iter().any(|stage| stage.name == name)
    {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(Failure::new(Class::Invalid, format!("the workflow has no stage `{name}`"))
            .help(format!("It has {}.", names.join(", "))));
    }
    if args.explain || args.check {
        return why(plan, registry, args, screen);
    }
    if screen.json() {
        let mut object = plan.json();
        if let (Some(name), Some(stages)) = (only, object["stages"].as_array_mut()) {
            stages.retain(|stage| stage["name"] == name);
        }
        object["warnings"] = plan.warnings.json().into();
        return Ok((false, Some(object)));
    }
    show_warnings(&plan.warnings, screen);
    screen.print(plan_text::text(plan, only));
    Ok((false, None))
}

/// Why each stage is run or not, and whether there is anything to do.
fn why(
    plan: &Plan,
    registry: &Registry,
    args: &PlanArgs,
    screen: &Screen,
) -> Result<(bool, Option<Value>), Failure> {
    let options =
        RunOptions { runs: args.runs.clone(), binding: Machine::binding(plan), ..RunOptions::default() };
    let mut explained = explain(plan, registry, &options)?;
    let needed = explained.iter().any(|told| matches!(told.state, State::Resume | State::Run));
    if let Some(name) = &args.stage {
        explained.retain(|told| told.stage == *name);
    }
    if screen.json() {
        let object = json!({ "format": 1, "name": plan.name, "work_needed": needed, "stages": explained });
        return Ok((needed, Some(object)));
    }
    show_warnings(&plan.warnings, screen);
    screen.print(explain_text::text(plan, &explained));
    Ok((needed, None))
}
