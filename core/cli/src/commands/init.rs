//! `fp8flow init`: a workflow to begin with. What is there already is left alone.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use fp8flow_flow::{Class, schema};
use serde_json::json;

use crate::args::{Common, InitArgs, Template};
use crate::engine::Machine;
use crate::failure::Failure;
use crate::screen::Screen;

const WORKFLOW: &str = "workflow.toml";
/// Where editors find the schema: the first line of a workflow points here.
const SCHEMA: &str = ".fp8flow/workflow.schema.json";

macro_rules! workflows {
    ($path:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../workflows/", $path))
    };
    (text $path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../workflows/", $path))
    };
}

/// The text of a template, and files beside it.
pub(super) type Files = (&'static str, &'static [(&'static str, &'static [u8])]);

const SFT: Files = (workflows!(text "sft.toml"), &[]);
pub(super) const QUICKSTART: Files = (
    workflows!(text "quickstart.toml"),
    &[
        ("quickstart/dates.json", workflows!("quickstart/dates.json")),
        ("quickstart/model/config.json", workflows!("quickstart/model/config.json")),
        ("quickstart/model/tokenizer.json", workflows!("quickstart/model/tokenizer.json")),
        ("quickstart/model/tokenizer_config.json", workflows!("quickstart/model/tokenizer_config.json")),
    ],
);

pub(super) fn init(common: &Common, args: &InitArgs, screen: &Screen) -> Result<(), Failure> {
    let (text, beside) = match args.template {
        Template::Sft => SFT,
        Template::Quickstart => QUICKSTART,
    };
    let text = text.replace("workflows/sft.toml", WORKFLOW);
    let text = format!("#:schema {SCHEMA}\n{text}");
    let registry = fp8flow_stages::registry(&Machine::to_look(common)?.engine);
    let schema = format!("{:#}\n", schema::of_workflow(&registry));
    let mut files: Vec<(&str, &[u8])> = vec![(WORKFLOW, text.as_bytes())];
    files.extend(beside);

    if let Some((name, _)) = files.iter().find(|(name, _)| args.folder.join(name).exists()) {
        let path = args.folder.join(name);
        return Err(Failure::new(Class::Io, format!("{} is there already", path.display()))
            .help("Name another folder: `fp8flow init DIR`."));
    }
    for (name, bytes) in &files {
        write(&args.folder.join(name), bytes, false)?;
    }
    // The schema is made, not written by a person: a newer one replaces it.
    write(&args.folder.join(SCHEMA), schema.as_bytes(), true)?;

    let workflow = args.folder.join(WORKFLOW);
    if screen.json() {
        screen.print(json!({ "event": "workflow_created", "workflow": workflow }).to_string());
    } else {
        let next = match args.template {
            Template::Sft => "check",
            Template::Quickstart => "run",
        };
        screen.print(format!("wrote {0}\nnext: fp8flow {next} {0}", workflow.display()));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Class::Io, format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path).and_then(|mut file| file.write_all(bytes)).map_err(failed)
}
