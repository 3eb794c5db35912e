//! `[backend]`: the plugin whose FP8 arithmetic a run uses, its recipe and the recipe's options.

use std::path::{Path, PathBuf};

use fp8flow_flow::{Class, Field, Kind, PlanCx, Planned, PlannedSection, Section, StageError};
use fp8flow_host::{HostError, Plugin, Search, check_options};
use fp8flow_sdk::{Options, Recipe};
use serde_json::{Value, json};

use crate::Engine;
use crate::failure::backend_class;
use crate::support::{self, Objection};

/// Its name in a workflow.
pub(crate) const SECTION: &str = "backend";

/// What `plugin = "auto"` takes, best first.
const AUTO: [&str; 2] = ["torchao-rowwise", "transformer-engine-hybrid"];
/// No FP8 at all.
const NONE: &str = "none";

pub(crate) struct Backend(pub(crate) Engine);

impl Section for Backend {
    fn name(&self) -> &'static str {
        SECTION
    }

    fn about(&self) -> &'static str {
        "The plugin that brings the FP8 arithmetic, and its recipe."
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::text("plugin").default("auto").about(
                "A plugin's name, the path of its library, auto (torchao-rowwise, else transformer-engine-hybrid), or \
                 none: no FP8.",
            ),
            Field::text("recipe").optional("the plugin's first").about("One of the plugin's recipes."),
            Field::free("options").about("The recipe's options; `fp8flow plugin show` lists them."),
            Field::bool(support::ALL_GATHER).default(false).about(
                "Whether weights would be gathered from other processes in FP8; an error in this version, which trains in one.",
            ),
            Field::new("paths", Kind::list(Kind::Path { exists: false }, ..))
                .default(json!([]))
                .changes_no_result()
                .about("Folders and libraries to look for plugins in, before the user's folder."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let params = cx.params();
        let name: &str = params.get("plugin");
        let all_gather: bool = params.get(support::ALL_GATHER);
        if name == NONE {
            object(cx, support::without_fp8(all_gather));
            return Planned::new(json!({ "fp8": false })).line("no FP8: plugin = \"none\"");
        }
        let (plugin, why) = match find(&self.0, name, &params.get::<Vec<PathBuf>>("paths"), cx.folder()) {
            Ok(found) => found,
            Err(error) => {
                cx.error("plugin", error.to_string()).class(class(&error));
                return Planned::default();
            }
        };
        let recipes = plugin.recipes();
        let recipe = match params.get::<Option<&str>>("recipe") {
            None => recipes.first(),
            Some(name) => recipes.iter().find(|recipe| recipe.name == name),
        };
        let Some(recipe) = recipe else {
            let name = params.get::<Option<&str>>("recipe").unwrap_or_default();
            let known: Vec<&str> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
            let list = known.join(", ");
            cx.error("recipe", format!("`{}` has no recipe `{name}`; it has {list}", plugin.name()))
                .did_you_mean(name, known);
            return Planned::default();
        };
        let given = params.get::<&Value>("options").as_object().cloned().unwrap_or_default();
        if object(cx, support::objections(plugin.name(), recipe, &given, all_gather)) {
            return Planned::default();
        }
        let options = match check_options(recipe, &given) {
            Ok(options) => options,
            Err(errors) => {
                for error in errors {
                    cx.error(&format!("options.{}", error.key), error.to_string());
                }
                return Planned::default();
            }
        };
        let facts = json!({
            "fp8": true,
            "plugin": plugin.name(),
            "version": plugin.manifest().version,
            "path": plugin.found().path,
            "digest": plugin.digest().to_string(),
            "recipe": recipe.name,
            "options": options,
        });
        let planned = Planned::new(facts)
            .line(format!("{} {}, recipe {}{why}", plugin.name(), plugin.manifest().version, recipe.name))
            .line(format!("{}", plugin.found().path.display()))
            .derive("options", Value::Object(options.0.clone()));
        if params.get::<Option<&str>>("recipe").is_none() {
            return planned.derive("recipe", recipe.name.clone());
        }
        planned
    }
}

/// Says what does not go together, if anything.
fn object(cx: &mut PlanCx<'_>, objections: impl IntoIterator<Item = Objection>) -> bool {
    for Objection { key, message, help } in objections {
        cx.error(key, message).help(help);
    }
    cx.has_errors()
}

/// The plugin called `name`, and how it was chosen where that needs saying.
fn find(
    engine: &Engine,
    name: &str,
    paths: &[PathBuf],
    folder: &Path,
) -> Result<(Plugin, String), HostError> {
    let search = Search::new(&engine.plugin_paths, paths);
    if name != "auto" {
        // A path is one, and relative to the workflow; a bare word is a name.
        let path = folder.join(name);
        let wanted = if name.contains('/') { path.to_string_lossy() } else { name.into() };
        return Ok((search.find(&wanted)?.open(&engine.host)?, String::new()));
    }
    let mut first = None;
    for (i, name) in AUTO.into_iter().enumerate() {
        match search.find(name) {
            Ok(found) => {
                let why = if i == 0 { "the first choice" } else { "the first choice is not installed" };
                return Ok((found.open(&engine.host)?, format!(" (auto: {why})")));
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.expect("the list of choices is not empty"))
}

/// What a user can do about an error of the host: get another plugin, or report a bug of this one.
fn class(error: &HostError) -> Class {
    match error {
        HostError::Call(error) => backend_class(error),
        _ => Class::Missing,
    }
}

/// Whether the workflow names an FP8 backend.
pub(crate) fn is_fp8(section: &PlannedSection) -> bool {
    section.facts["fp8"] == true
}

/// The recipe of a planned section, fresh; none where the workflow wants no FP8.
pub(crate) fn recipe(
    engine: &Engine,
    section: &PlannedSection,
) -> Result<Option<Box<dyn Recipe>>, StageError> {
    let facts = &section.facts;
    if !is_fp8(section) {
        return Ok(None);
    }
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let missing = |error: HostError| StageError::new(class(&error), error);
    let plugin = Search::new(&engine.plugin_paths, &[])
        .find(text("path"))
        .and_then(|found| found.open(&engine.host))
        .map_err(missing)?;
    if plugin.digest().to_string() != text("digest") {
        return Err(StageError::failed(format!(
            "{} has changed since the run was planned",
            plugin.found().path.display()
        ))
        .help("Run again."));
    }
    let options = Options(facts["options"].as_object().cloned().unwrap_or_default());
    plugin.recipe(text("recipe"), &options).map(Some).map_err(missing)
}
