//! `layers.filter`: which linear layers run in FP8, under which recipe, and why not the others.

mod settings;

use std::path::Path;

use fp8flow_flow::{
    Field, Outcome, Params, PlanCx, Planned, PlannedSection, StageCx, StageError, StageKind, Threads,
};
use fp8flow_model::by_reference::device_id;
use fp8flow_model::{ModelConfig, linear_layers};
use fp8flow_sdk::LayerFacts;
use serde_json::json;

use crate::failure::{OrFail as _, backend_class};
use crate::layer_plan::{FilterRule, LayerPlan, Menu, Offer};
use crate::model::{self, MODEL};
use crate::{Engine, backend};
use settings::Settings;

/// The kind of the artifact.
pub(crate) const LAYERS: &str = "layers";

/// The decisions within the stage's folder.
const FILE: &str = "layers.json";
/// The same for people.
const TABLE: &str = "layers.txt";

pub(crate) struct LayersFilter(pub(crate) Engine);

impl StageKind for LayersFilter {
    fn name(&self) -> &'static str {
        "layers.filter"
    }

    fn about(&self) -> &'static str {
        "Decides for every linear layer whether it runs in FP8: by name, block and size, then by the recipe's own rule."
    }

    fn produces(&self) -> &'static str {
        LAYERS
    }

    fn threads(&self, _: &Params) -> Threads {
        Threads::Some(1)
    }

    fn fields(&self) -> Vec<Field> {
        settings::fields()
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let settings = Settings::read(cx.params());
        if let Err(problems) = &settings {
            for (key, problem) in problems {
                cx.error(key, problem);
            }
        }
        let Some(config) = cx.input("model").and_then(model::planned_config) else {
            return Planned::default();
        };
        let (Some(section), Ok(settings)) = (cx.section(backend::SECTION), settings) else {
            return Planned::default();
        };
        let layers = linear_layers(&config, settings.tokens);
        settings.check_layers(cx, &layers);
        if cx.has_errors() {
            return Planned::default();
        }
        let prediction = if backend::is_fp8(section) { settings.prediction() } else { String::new() };
        match self.decide(cx, section, &settings, layers) {
            Some(plan) => {
                let facts = json!({ "layers": plan, "fp8_share": plan.fp8_share() });
                Planned::new(facts).text(&plan.table()).text(&prediction)
            }
            None => Planned::default(),
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let (config, _) = model::open(cx.input("model")).or_fail()?;
        // What was planned is what runs: the decisions are made once.
        let plan: LayerPlan =
            serde_json::from_value(cx.facts()["layers"].clone()).map_err(StageError::bug)?;
        if !plan.fits(&config) {
            return Err(StageError::failed("the model's layers are not those that were planned for")
                .help("Its config.json has changed since the run was planned: run again."));
        }
        if let Some(why) = backend::fallback(cx.section(backend::SECTION)) {
            cx.warn(format!("no layer runs in FP8: fallback = \"bf16\", because {why}"));
        }
        for (name, text) in [(FILE, json!(plan).to_string() + "\n"), (TABLE, plan.table())] {
            let path = cx.folder().join(name);
            fp8flow_flow::atomic::write(&path, text.as_bytes())
                .map_err(|error| StageError::io(&path, error))?;
        }
        let (fp8, all) = (plan.fp8().count(), plan.layers.len());
        Ok(Outcome::new(json!({ "file": FILE, "fp8": fp8, "layers": all })).summary(format!(
            "{fp8} of {all} linear layers in FP8, {:.1} % of their FLOPs",
            100.0 * plan.fp8_share()
        )))
    }
}

impl LayersFilter {
    /// The decision for every one of `layers`; none where there is something to object to, which is said.
    fn decide(
        &self,
        cx: &mut PlanCx<'_>,
        section: &PlannedSection,
        settings: &Settings,
        layers: Vec<LayerFacts>,
    ) -> Option<LayerPlan> {
        let object = |cx: &mut PlanCx<'_>, error: StageError| {
            let issue = cx.error("uses", error.message);
            issue.class(error.class);
            if let Some(help) = error.help {
                issue.help(help);
            }
        };
        if !backend::is_fp8(section) {
            let why = match backend::fallback(section) {
                Some(why) => format!("fallback: {why}"),
                None => "no FP8 backend (plugin = \"none\")".into(),
            };
            return Some(LayerPlan::decide(layers, &settings.rule, Offer::Nobody(&why)));
        }
        let menu = match self.menu(cx, section, settings) {
            Ok(menu) => menu?,
            Err(error) => {
                object(cx, error);
                return None;
            }
        };
        settings.check_menu(cx, &layers, &menu);
        if cx.has_errors() {
            return None;
        }
        let plan = self.offer(layers, &settings.rule, &menu);
        // A decision has no error in its signature; a plugin that failed to decide says so here.
        if let Err(error) = menu.recipes().try_for_each(fp8flow_sdk::Recipe::healthy) {
            object(cx, StageError::new(backend_class(&error), error));
            return None;
        }
        if plan.fp8().next().is_none() {
            let table = plan.table();
            let (_, why) = table.split_once("\n\n").unwrap_or_default();
            cx.error("model", format!("no layer of this model would run in FP8\n{why}")).help(
                "Loosen the keys of this stage, or set `plugin = \"none\"` in [backend] to train without FP8.",
            );
            return None;
        }
        Some(plan)
    }

    /// Decides about `layers` on the device of the plan.
    fn offer(&self, mut layers: Vec<LayerFacts>, rule: &FilterRule, menu: &Menu) -> LayerPlan {
        let place = self.0.device().card().map(device_id);
        for layer in &mut layers {
            layer.device = place;
        }
        let mut plan = LayerPlan::decide(layers, rule, Offer::Recipes(menu));
        // Which stream it is on counts for this process alone.
        for layer in &mut plan.layers {
            layer.facts.device = None;
        }
        plan
    }

    /// The recipes that the section and the stage name.
    fn menu(
        &self,
        cx: &mut PlanCx<'_>,
        section: &PlannedSection,
        settings: &Settings,
    ) -> Result<Option<Menu>, StageError> {
        let Some(plugin) = backend::open(&self.0, section)? else { return Ok(None) };
        let own = backend::choice(section);
        let mut menu = Menu::new(own.clone(), backend::configure(&plugin, &own)?);
        for (i, entry) in settings.entries.iter().enumerate() {
            let device = self.0.device();
            match backend::choose_recipe(
                &plugin,
                device.card(),
                &own,
                entry.recipe.as_deref(),
                &entry.options,
            ) {
                Ok(choice) => {
                    menu.assign(entry.layers.clone(), choice, |choice| backend::configure(&plugin, choice))?;
                }
                Err(objections) => {
                    for objection in objections {
                        objection.file(cx, &format!("recipes.{i}."));
                    }
                }
            }
        }
        Ok((!cx.has_errors()).then_some(menu))
    }
}

/// Objects where the stage of the edge `layers` decides about another model than that of the edge `model`.
pub(crate) fn check_fit(cx: &mut PlanCx<'_>) {
    let Some(config) = cx.input("model").and_then(model::planned_config) else { return };
    let plan = cx.input("layers").and_then(|stage| stage.fact("layers").cloned());
    let Some(plan) = plan.and_then(|plan| serde_json::from_value::<LayerPlan>(plan).ok()) else { return };
    if !plan.fits(&config) {
        cx.error("layers", "these layers are those of another model")
            .help("Name a `layers.filter` stage whose `model` has the same configuration.");
    }
}

/// Reads the decisions that the stage in `folder` has written, about a model of `config`.
pub(crate) fn read(folder: &Path, config: &ModelConfig) -> Result<LayerPlan, StageError> {
    let path = folder.join(FILE);
    let text = std::fs::read(&path).map_err(|error| StageError::io(&path, error))?;
    let plan: LayerPlan = serde_json::from_slice(&text)
        .map_err(|error| StageError::failed(format!("{}: {error}", path.display())))?;
    let wrong = |why: &str| Err(StageError::failed(format!("{}: {why}", path.display())));
    if !plan.fits(config) {
        return wrong("these layers are those of another model");
    }
    if plan.fp8().any(|layer| layer.recipe.is_none_or(|number| number >= plan.recipes.len())) {
        return wrong("a layer in FP8 has no recipe");
    }
    Ok(plan)
}
