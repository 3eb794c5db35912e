//! `fp8flow check`: everything that is wrong with a workflow.

use serde_json::json;

use super::planned;
use crate::args::{Common, WorkflowArgs};
use crate::engine::Machine;
use crate::failure::{Failure, show_warnings};
use crate::screen::Screen;

pub(super) fn check(common: &Common, args: &WorkflowArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    for plan in planned(args, None, &fp8flow_stages::registry(&machine.engine))? {
        if screen.json() {
            let warnings = plan.warnings.json();
            screen.print(
                json!({ "event": "workflow_checked", "name": plan.name, "warnings": warnings }).to_string(),
            );
            continue;
        }
        show_warnings(&plan.warnings, screen);
        if !common.quiet {
            let point = plan.point.as_ref().map_or(String::new(), |point| format!(", {point},"));
            screen.print(format!("{}{point} is valid: {} stages", args.file.display(), plan.stages.len()));
        }
    }
    Ok(())
}
