//! `layers.filter`: which linear layers run in FP8, and why not the others.

use std::path::Path;

use fp8flow_flow::{Field, Outcome, PlanCx, Planned, PlannedSection, StageCx, StageError, StageKind};
use fp8flow_model::{ModelConfig, linear_layers};
use serde_json::json;

use crate::failure::{OrFail as _, backend_class};
use crate::layer_plan::{FilterRule, LayerPlan};
use crate::model::{self, MODEL};
use crate::{Engine, backend};

/// The kind of the artifact.
pub(crate) const LAYERS: &str = "layers";

/// The decisions within the stage's folder.
const FILE: &str = "layers.json";

pub(crate) struct LayersFilter(pub(crate) Engine);

impl StageKind for LayersFilter {
    fn name(&self) -> &'static str {
        "layers.filter"
    }

    fn about(&self) -> &'static str {
        "Decides for every linear layer whether it runs in FP8: by name, by dimensions, then by the recipe's own rule."
    }

    fn produces(&self) -> &'static str {
        LAYERS
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("model", &[MODEL]).about("The model."),
            Field::strings("skip")
                .default(json!(["embed", "lm_head", "output", "classifier"]))
                .about("Layers whose name contains one of these words, in any case, stay in high precision."),
            Field::integer("multiple_of", 1..)
                .default(16)
                .about("Both dimensions of a layer's weight must be multiples of this."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let Some(config) = cx.input("model").and_then(model::planned_config) else {
            return Planned::default();
        };
        let Some(section) = cx.section(backend::SECTION) else { return Planned::default() };
        let rule = rule(cx.params());
        match decide(&self.0, section, &config, &rule) {
            Ok(plan) => {
                let none = backend::is_fp8(section) && plan.fp8().next().is_none();
                if none {
                    cx.error("model", "no layer of this model would run in FP8").help(
                        "Loosen `skip` or `multiple_of`, or set `plugin = \"none\"` in [backend] to train without FP8.",
                    );
                }
                let facts = json!({ "layers": plan, "fp8_share": plan.fp8_share() });
                Planned::new(facts).text(&plan.table())
            }
            Err(error) => {
                let issue = cx.error("uses", error.message);
                issue.class(error.class);
                if let Some(help) = error.help {
                    issue.help(help);
                }
                Planned::default()
            }
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let (config, _) = model::open(cx.input("model")).or_fail()?;
        let plan = decide(&self.0, cx.section(backend::SECTION), &config, &rule(cx.params()))?;
        let path = cx.folder().join(FILE);
        fp8flow_flow::atomic::write(&path, (json!(plan).to_string() + "\n").as_bytes())
            .map_err(|error| StageError::io(&path, error))?;
        let (fp8, all) = (plan.fp8().count(), plan.layers.len());
        Ok(Outcome::new(json!({ "file": FILE, "fp8": fp8, "layers": all })).summary(format!(
            "{fp8} of {all} linear layers in FP8, {:.1} % of their FLOPs",
            100.0 * plan.fp8_share()
        )))
    }
}

/// The decision for every linear layer of a model of `config`.
fn decide(
    engine: &Engine,
    section: &PlannedSection,
    config: &ModelConfig,
    rule: &FilterRule,
) -> Result<LayerPlan, StageError> {
    let recipe = backend::recipe(engine, section)?;
    let plan = LayerPlan::decide(linear_layers(config, None), rule, recipe.as_deref());
    // A decision has no error in its signature; a plugin that failed to decide says so here.
    let healthy = recipe.map_or(Ok(()), |recipe| recipe.healthy());
    healthy.map_err(|error| StageError::new(backend_class(&error), error))?;
    Ok(plan)
}

fn rule(params: &fp8flow_flow::Params) -> FilterRule {
    FilterRule { skip: params.get("skip"), multiple_of: params.get("multiple_of") }
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
    if !plan.fits(config) {
        return Err(StageError::failed(format!(
            "{}: these layers are those of another model",
            path.display()
        )));
    }
    Ok(plan)
}
