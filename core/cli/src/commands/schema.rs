//! `fp8flow schema`: what may be written in a workflow, for editors and for people.

use fp8flow_flow::{Class, docs, schema as tables};

use crate::args::{Common, SchemaArgs, SchemaFormat};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn schema(common: &Common, args: &SchemaArgs, screen: &Screen) -> Result<(), Failure> {
    let registry = fp8flow_stages::registry(&Machine::to_look(common)?.engine);
    let names = || registry.stages().map(fp8flow_flow::StageKind::name).collect::<Vec<_>>().join(", ");
    let unknown = |name: &str| {
        Failure::new(Class::Invalid, format!("unknown kind of stage `{name}`"))
            .help(format!("There are: {}.", names()))
    };
    let pretty = |value: serde_json::Value| format!("{value:#}");
    let text = match (args.format, args.stage.as_deref()) {
        (SchemaFormat::Json, None) => pretty(tables::of_workflow(&registry)),
        (SchemaFormat::Json, Some(name)) => {
            tables::of_stage(&registry, name).map(pretty).ok_or_else(|| unknown(name))?
        }
        (SchemaFormat::Markdown, None) => docs::markdown(&registry),
        (SchemaFormat::Markdown | SchemaFormat::Text, Some(name)) => {
            docs::text(&registry, name).ok_or_else(|| unknown(name))?
        }
        (SchemaFormat::Support, _) => fp8flow_stages::support::markdown(),
        (SchemaFormat::Text, None) => registry
            .stages()
            .filter_map(|stage| docs::text(&registry, stage.name()))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    screen.print(text);
    Ok(())
}
