//! `fp8flow doctor`: whether this machine can run FP8, or a workflow.

use fp8flow_flow::{Class, Workflow};
use fp8flow_stages::doctor::{Diagnosis, Question, Status, examine};
use serde_json::{Value, json};

use crate::args::{Common, DoctorArgs};
use crate::doctor_text;
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn doctor(common: &Common, args: DoctorArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_compute(common)?;
    let registry = fp8flow_stages::registry(&machine.engine);
    let plan = args.workflow.as_ref().map(|file| {
        Workflow::read(file, &args.set)
            // Of the points of a matrix the first stands for all.
            .and_then(|workflow| {
                Ok(workflow.with_runs(args.runs.as_deref()).plans(&registry, None)?.swap_remove(0))
            })
    });
    let diagnosis = examine(&Question {
        engine: &machine.engine,
        threads: machine.threads(),
        plan: plan.as_ref().map(Result::as_ref),
        runs: args.runs,
    });
    let workflow = args.workflow.as_ref().map(|file| file.display().to_string());
    if screen.json() {
        screen.print(object(&diagnosis, workflow.as_deref()).to_string());
    } else {
        screen.print(doctor_text::text(&diagnosis, workflow.as_deref(), common.quiet));
    }
    diagnosis.class.map_or(Ok(()), |class| Err(Failure::Said(class)))
}

/// The diagnosis for programs.
fn object(diagnosis: &Diagnosis, workflow: Option<&str>) -> Value {
    json!({
        "event": "doctor_finished",
        "fp8flow": env!("CARGO_PKG_VERSION"),
        "workflow": workflow,
        "can_run": diagnosis.class.is_none(),
        "class": diagnosis.class,
        "exit_code": diagnosis.class.map_or(0, Class::exit_code),
        "counts": {
            "ok": diagnosis.count(Status::Ok),
            "warn": diagnosis.count(Status::Warn),
            "fail": diagnosis.count(Status::Fail),
        },
        "rows": diagnosis.rows,
    })
}
