//! `fp8flow doctor`: whether this machine can run FP8, or a given workflow, row by row with advice.
//!
//! Facts come from `fp8flow_host::machine`, from the plugins themselves and from the plan; what they are worth is judged
//! here, by the table of [`crate::support`]. Whatever may crash (a driver, a plugin at work) is tried in a process of its
//! own: a program that uses this calls [`run_if_child`] before anything else.
//!
//! Without a workflow the question is whether every plugin that was found works; with one, whether that workflow can run
//! here. [`Diagnosis::class`] is the answer.

mod cards;
mod machine;
mod plugins;
mod row;
mod trial;
mod workflow;

use std::path::PathBuf;

use fp8flow_flow::{Class, Error, Plan};
use fp8flow_host::Search;
use fp8flow_host::machine::{Cuda, Memory};

use crate::Engine;

pub use row::{Diagnosis, Group, Row, Status};
pub use trial::run_if_child;

/// What is asked about.
pub struct Question<'a> {
    /// What stages would run on.
    pub engine: &'a Engine,
    /// Threads that would compute.
    pub threads: usize,
    /// The workflow as planned, or why it is none.
    pub plan: Option<Result<&'a Plan, &'a Error>>,
    /// The folder of runs; `runs` beside the workflow, or in the current folder, by default.
    pub runs: Option<PathBuf>,
}

/// Looks at everything. Changes nothing but the host's memory of the plugins it has seen.
pub fn examine(question: &Question<'_>) -> Diagnosis {
    let plan = match question.plan {
        Some(Ok(plan)) => Some(plan),
        _ => None,
    };
    let beside = plan.map_or_else(|| PathBuf::from("."), |plan| plan.folder.clone());
    let runs = question.runs.clone().unwrap_or_else(|| beside.join("runs"));
    let memory = Memory::look();
    let mut rows = machine::rows(question, memory, &runs);
    rows.extend(cards::rows(Cuda::look(), workflow::asks_for_cuda(question.plan)));
    let search = Search::new(&question.engine.plugin_paths, &plan.map(workflow::places).unwrap_or_default());
    rows.extend(plugins::rows(&search, question));
    match question.plan {
        None => {
            let broken = rows.iter().any(|row| row.group == Group::Plugins && row.status == Status::Fail);
            Diagnosis { rows, class: broken.then_some(Class::Missing) }
        }
        Some(Err(error)) => {
            rows.extend(workflow::objections(error));
            Diagnosis { rows, class: Some(error.class()) }
        }
        Some(Ok(plan)) => {
            rows.extend(workflow::rows(question, plan, memory, &runs));
            let cannot = rows.iter().any(|row| row.group == Group::Workflow && row.status == Status::Fail);
            Diagnosis { rows, class: cannot.then_some(Class::Missing) }
        }
    }
}
