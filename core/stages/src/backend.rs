//! `[backend]`: the plugin whose FP8 arithmetic a run uses, its recipe and the recipe's options.

mod choice;
mod objection;

use std::path::PathBuf;

use fp8flow_flow::{Class, Field, Kind, PlanCx, Planned, PlannedSection, Section, StageError, code};
use fp8flow_host::{HostError, Plugin, Search, check_options};
use fp8flow_sdk::{Options, Recipe};
use fp8flow_tensor::Card;
use serde_json::{Map, Value, json};

use crate::Engine;
use crate::device::CUDA;
use crate::failure::host_class;
use crate::layer_plan::{LayerPlan, RecipeChoice};
use crate::recipe_set::RecipeSet;
use crate::support;
use choice::{Chosen, Unavailable};
pub(crate) use objection::Objection;

/// Its name in a workflow.
pub(crate) const SECTION: &str = "backend";

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
                "A plugin's name, the path of its library, auto (torchao-rowwise, else transformer-engine-hybrid; the \
                 first with the `recipe`, if that is set), or none: no FP8.",
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
            Field::choice("fallback", &["error", "bf16"]).default("error").about(
                "What happens where the plugin is not available: nothing is run, or everything is run without FP8, and \
                 every output says so.",
            ),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let params = cx.params();
        let (name, recipe): (&str, Option<&str>) = (params.get("plugin"), params.get("recipe"));
        let all_gather: bool = params.get(support::ALL_GATHER);
        let no_options = Map::new();
        let options = params.get::<&Value>("options").as_object().unwrap_or(&no_options);
        if name == NONE {
            object(cx, support::without_fp8(all_gather));
            for key in [recipe.map(|_| "recipe"), (!options.is_empty()).then_some("options")] {
                let Some(key) = key else { continue };
                cx.error(key, format!("`{key}` is set, but `plugin = \"none\"` has no recipe")).help(
                    "Remove it, or name a plugin. On the command line the whole table is replaced by \
                     `--set 'backend={plugin=\"none\"}'`.",
                );
            }
            return Planned::new(json!({ "fp8": false })).line("no FP8: plugin = \"none\"");
        }
        let paths: Vec<PathBuf> = params.get("paths");
        self.check_paths(cx, &paths);
        let search = Search::new(&self.0.plugin_paths, &paths);
        match choice::choose(&search, &self.0.host, name, recipe, cx.folder()) {
            Ok(chosen) => planned(cx, &self.0, &chosen, recipe, options, all_gather),
            Err(missing) if missing.class == Class::Missing && params.get::<&str>("fallback") == "bf16" => {
                fall_back(cx, &missing)
            }
            Err(missing) => {
                let issue = cx.error(missing.key, missing.message).class(missing.class);
                if let Some(help) = missing.help {
                    issue.help(help);
                }
                Planned::default()
            }
        }
    }
}

/// Says what does not go together, if anything.
fn object(cx: &mut PlanCx<'_>, objections: impl IntoIterator<Item = support::Objection>) -> bool {
    for support::Objection { key, message, help, class } in objections {
        cx.error(key, message).help(help).class(class);
    }
    cx.has_errors()
}

impl Backend {
    /// A place that was named and is not there is no place that was searched.
    fn check_paths(&self, cx: &mut PlanCx<'_>, paths: &[PathBuf]) {
        for (i, path) in paths.iter().enumerate().filter(|(_, path)| !path.exists()) {
            cx.error(&format!("paths.{i}"), format!("no such file or folder: {}", path.display()))
                .code(code::NO_SUCH_PATH);
        }
        for path in self.0.plugin_paths.iter().filter(|path| !path.exists()) {
            cx.error("", format!("--plugin-path {}: no such file or folder", path.display()))
                .class(Class::Missing);
        }
    }
}

/// The section, where a plugin was chosen.
fn planned(
    cx: &mut PlanCx<'_>,
    engine: &Engine,
    Chosen { plugin, how }: &Chosen,
    recipe: Option<&str>,
    options: &Map<String, Value>,
    all_gather: bool,
) -> Planned {
    let device = engine.device();
    let devices = &plugin.manifest().devices;
    if device.card().is_some() && !devices.iter().any(|device| device == CUDA) {
        let (name, devices, device) = (plugin.name(), devices.join(" and "), device.name());
        cx.error("plugin", format!("plugin `{name}` runs on {devices} alone, and the workflow's device is {device}"))
            .help("Set `device = \"cpu\"` in [workflow], or name a plugin that runs on cards: `fp8flow plugin show` says so.");
        return Planned::default();
    }
    let info = plugin.recipes().iter().find(|info| recipe.is_none_or(|recipe| recipe == info.name));
    if let Some(info) = info
        && object(cx, support::objections(plugin.name(), info, options, all_gather))
    {
        return Planned::default();
    }
    let first = plugin.recipes().first().map(|recipe| recipe.name.as_str()).unwrap_or_default();
    let defaults = RecipeChoice { recipe: first.into(), options: Options::default() };
    let choice = match choose_recipe(plugin, device.card(), &defaults, recipe.or(Some(first)), options) {
        Ok(choice) => choice,
        Err(objections) => {
            for objection in objections {
                objection.file(cx, "");
            }
            return Planned::default();
        }
    };
    let mut facts = json!({
        "fp8": true,
        "plugin": plugin.name(),
        "version": plugin.manifest().version,
        "path": plugin.found().path,
        "sdk": plugin.manifest().sdk,
        "digest": plugin.digest().to_string(),
        "recipe": choice.recipe,
        "options": choice.options,
    });
    let mut planned = Planned::default()
        .line(format!("{} {}, recipe {}", plugin.name(), plugin.manifest().version, choice.recipe))
        .line(format!("{}", plugin.found().path.display()));
    if let Some(how) = how {
        facts["auto"] = json!({ "why": how.why, "passed_over": how.passed_over() });
        planned = planned.text(&how.text(plugin.name()));
        for refused in how.refused() {
            cx.warning("plugin", format!("passed over: {refused}"));
        }
    }
    planned.facts = facts;
    planned = planned.derive("options", Value::Object(choice.options.0));
    if recipe.is_none() { planned.derive("recipe", choice.recipe) } else { planned }
}

/// The section, where there is no plugin and the workflow says to go on without FP8.
fn fall_back(cx: &mut PlanCx<'_>, missing: &Unavailable) -> Planned {
    let why = missing.message.lines().next().unwrap_or_default();
    cx.warning("fallback", format!("this is no FP8 run: {}", missing.message))
        .label("so everything runs in bf16, and every output says so")
        .help("Remove `fallback` to make this an error.");
    Planned::new(json!({ "fp8": false, "fallback": "bf16", "why": why }))
        .line("!! NO FP8 !!  fallback = \"bf16\" takes the place of a backend that is not available:")
        .line(format!("!! NO FP8 !!  {why}"))
}

/// Whether the workflow names an FP8 backend, and it is there.
pub(crate) fn is_fp8(section: &PlannedSection) -> bool {
    section.facts["fp8"] == true
}

/// Why a run that asked for FP8 goes on without, if it does.
pub(crate) fn fallback(section: &PlannedSection) -> Option<&str> {
    section.facts.get("fallback").and(section.facts["why"].as_str())
}

/// The recipe and options of a planned section.
pub(crate) fn choice(section: &PlannedSection) -> RecipeChoice {
    let facts = &section.facts;
    RecipeChoice {
        recipe: facts["recipe"].as_str().unwrap_or_default().into(),
        options: Options(facts["options"].as_object().cloned().unwrap_or_default()),
    }
}

/// The recipe that a table with `recipe` and `options` names, to be run on `card` if on one: another one with its
/// defaults, or `own` with some of its options replaced.
pub(crate) fn choose_recipe(
    plugin: &Plugin,
    card: Option<&Card>,
    own: &RecipeChoice,
    recipe: Option<&str>,
    options: &Map<String, Value>,
) -> Result<RecipeChoice, Vec<Objection>> {
    let name = recipe.unwrap_or(&own.recipe);
    let Some(info) = plugin.recipes().iter().find(|info| info.name == name) else {
        let known: Vec<String> = plugin.recipes().iter().map(|info| info.name.clone()).collect();
        return Err(vec![Objection::unknown_recipe(plugin.name(), name, known)]);
    };
    let mut given = if recipe.is_none() { own.options.0.clone() } else { Map::new() };
    given.extend(options.clone());
    let mut objections = support::objections(plugin.name(), info, &given, false);
    objections.extend(card.and_then(|card| support::on_card(plugin.name(), name, card)));
    if !objections.is_empty() {
        return Err(objections.into_iter().map(Objection::from).collect());
    }
    let options = check_options(info, &given)
        .map_err(|errors| errors.iter().map(Objection::option).collect::<Vec<_>>())?;
    Ok(RecipeChoice { recipe: info.name.clone(), options })
}

/// The plugin of a planned section; none where the run is without FP8.
pub(crate) fn open(engine: &Engine, section: &PlannedSection) -> Result<Option<Plugin>, StageError> {
    if !is_fp8(section) {
        return Ok(None);
    }
    let text = |key: &str| section.facts[key].as_str().unwrap_or_default();
    let plugin = Search::new(&engine.plugin_paths, &[])
        .find(text("path"))
        .and_then(|found| found.open(&engine.host))
        .map_err(stage_error)?;
    if plugin.digest().to_string() != text("digest") {
        return Err(StageError::failed(format!(
            "{} has changed since the run was planned",
            plugin.found().path.display()
        ))
        .help("Run again."));
    }
    Ok(Some(plugin))
}

/// A recipe of `plugin`, fresh.
pub(crate) fn configure(plugin: &Plugin, choice: &RecipeChoice) -> Result<Box<dyn Recipe>, StageError> {
    plugin.recipe(&choice.recipe, &choice.options).map_err(stage_error)
}

/// The recipe of a run whose layers are planned so, fresh: under several, each layer's own. None where no layer runs in
/// FP8.
pub(crate) fn recipe(
    engine: &Engine,
    section: &PlannedSection,
    layers: &LayerPlan,
) -> Result<Option<Box<dyn Recipe>>, StageError> {
    if layers.recipes.is_empty() {
        return Ok(None);
    }
    let Some(plugin) = open(engine, section)? else {
        return Err(StageError::failed("layers are planned in FP8, but the workflow has no FP8 backend")
            .help("Plan the layers again: their stage must be of this workflow."));
    };
    let recipes =
        layers.recipes.iter().map(|choice| Ok((choice.recipe.clone(), configure(&plugin, choice)?)));
    let of = layers.layers.iter().filter_map(|layer| Some((layer.facts.name.clone(), layer.recipe?)));
    Ok(RecipeSet::assemble(recipes.collect::<Result<_, StageError>>()?, of.collect()))
}

fn stage_error(error: HostError) -> StageError {
    StageError::new(host_class(&error), error)
}
