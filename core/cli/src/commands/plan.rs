//! `fp8flow plan`: what a workflow would do.

use super::planned;
use crate::args::{Common, WorkflowArgs};
use crate::engine::Machine;
use crate::failure::{Failure, show_warnings};
use crate::plan_text;
use crate::screen::Screen;

pub(super) fn plan(common: &Common, args: &WorkflowArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    let plan = planned(args, &fp8flow_stages::registry(&machine.engine))?;
    if screen.json() {
        let mut object = plan.json();
        object["warnings"] = plan.warnings.json().into();
        screen.print(object.to_string());
    } else {
        show_warnings(&plan.warnings, screen);
        screen.print(plan_text::text(&plan));
    }
    Ok(())
}
