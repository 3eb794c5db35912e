//! `fp8flow graph`: the stages of a workflow as a graph.

use super::planned;
use crate::args::{Common, GraphArgs, GraphFormat};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::graph_text;
use crate::screen::Screen;

pub(super) fn graph(common: &Common, args: &GraphArgs, screen: &Screen) -> Result<(), Failure> {
    let machine = Machine::to_look(common)?;
    let plans = planned(&args.workflow, None, &fp8flow_stages::registry(&machine.engine))?;
    // The points of a matrix have the same stages.
    let Some(plan) = plans.into_iter().next() else { return Ok(()) };
    let text = match args.format {
        GraphFormat::Mermaid => graph_text::mermaid(&plan),
        GraphFormat::Dot => graph_text::dot(&plan),
        GraphFormat::Svg => graph_text::svg(&plan),
    };
    screen.print(text.trim_end());
    Ok(())
}
