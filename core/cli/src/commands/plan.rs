//! `fp8flow plan`: what a workflow would do.

use fp8flow_flow::Class;

use super::planned;
use crate::args::{Common, PlanArgs};
use crate::engine::Machine;
use crate::failure::{Failure, show_warnings};
use crate::plan_text;
use crate::screen::Screen;

pub(super) fn plan(common: &Common, args: &PlanArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    let plan = planned(&args.workflow, &fp8flow_stages::registry(&machine.engine))?;
    let only = args.stage.as_deref();
    if let Some(name) = only
        && !plan.stages.iter().any(|stage| stage.name == name)
    {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(Failure::new(Class::Invalid, format!("the workflow has no stage `{name}`"))
            .help(format!("It has {}.", names.join(", "))));
    }
    if screen.json() {
        let mut object = plan.json();
        if let (Some(name), Some(stages)) = (only, object["stages"].as_array_mut()) {
            stages.retain(|stage| stage["name"] == name);
        }
        object["warnings"] = plan.warnings.json().into();
        screen.print(object.to_string());
    } else {
        show_warnings(&plan.warnings, screen);
        screen.print(plan_text::text(&plan, only));
    }
    Ok(())
}
