//! Every recipe of a run shows that it computes in FP8 before anything is trained with it, and a card that it computes
//! what the recipe does on the CPU.

use fp8flow_flow::{Class, PlannedSection, StageError};
use fp8flow_host::Plugin;
use fp8flow_sdk::LayerFacts;
use fp8flow_testkit::Failure;
use fp8flow_testkit::challenge::{Evidence, FP8_DB, SHAPES, challenge_with};
use serde_json::{Value, json};

use crate::failure::backend_class;
use crate::layer_plan::{LayerPlan, RecipeChoice};
use crate::{Engine, backend, card_check};

/// A recipe that has shown what it does.
pub(super) struct Challenged {
    recipe: String,
    evidence: Evidence,
    card: Option<OnCard>,
}

/// How near a card comes to the CPU's y, dx and dW, in dB.
struct OnCard {
    name: String,
    db: [f64; 3],
}

/// Challenges a fresh instance of each recipe that layers are planned with.
pub(super) fn challenge(
    engine: &Engine,
    section: &PlannedSection,
    layers: &LayerPlan,
) -> Result<Vec<Challenged>, StageError> {
    let mut challenged = Vec::new();
    if layers.recipes.is_empty() {
        return Ok(challenged);
    }
    let Some(plugin) = backend::open(engine, section)? else { return Ok(challenged) };
    for (i, choice) in layers.recipes.iter().enumerate() {
        let planned = layers.layers.iter().filter(|layer| layer.recipe == Some(i));
        let planned: Vec<&LayerFacts> = planned.map(|layer| &layer.facts).collect();
        challenged.push(challenge_one(engine, &plugin, choice, &planned)?);
    }
    Ok(challenged)
}

fn challenge_one(
    engine: &Engine,
    plugin: &Plugin,
    choice: &RecipeChoice,
    planned: &[&LayerFacts],
) -> Result<Challenged, StageError> {
    let recipe = &choice.recipe;
    let accuse = |class: Class, what: String| {
        let (name, version, layers) = (plugin.name(), &plugin.manifest().version, planned.len());
        let first = planned.first().map(|facts| facts.name.as_str()).unwrap_or_default();
        StageError::new(
            class,
            format!(
                "recipe `{recipe}` of plugin `{name}` {version}, planned for {layers} layers (`{first}`, …), was challenged with a small layer: {what}"
            ),
        )
        .help("Nothing was trained. Use another plugin, or `plugin = \"none\"` to train without FP8.")
    };
    // A recipe that takes no small layer is challenged with the smallest that it is planned for.
    let smallest =
        planned.iter().map(|facts| [facts.in_features, facts.out_features]).min_by_key(|[k, n]| k * n);
    let shapes: Vec<[usize; 2]> = SHAPES.into_iter().chain(smallest).collect();
    let evidence = challenge_with(backend::configure(plugin, choice)?, &shapes).map_err(|failure| {
        let class = match &failure {
            Failure::Call { error, .. } => backend_class(error),
            _ => Class::Failed,
        };
        accuse(class, failure.to_string())
    })?;
    evidence.verdict().map_err(|objection| accuse(Class::Failed, objection.to_string()))?;
    let card = card_check::name(&*engine.device());
    let db = card_check::layer(engine, recipe, evidence.shape, || backend::configure(plugin, choice))?;
    let card = card.zip(db).map(|(name, db)| OnCard { name, db });
    Ok(Challenged { recipe: recipe.clone(), evidence, card })
}

impl Challenged {
    /// One line for people.
    pub(super) fn line(&self) -> String {
        let [k, n] = self.evidence.shape;
        let ((low, high), evidence) = (FP8_DB, &self.evidence);
        let line = format!(
            "fp8: recipe {} was seen to compute in FP8: a layer of {n} × {k} is {evidence} from exact products ({low} to {high} is FP8)",
            self.recipe
        );
        let Some(OnCard { name, db }) = &self.card else { return line };
        let db = db.iter().fold(f64::INFINITY, |least, db| db.min(least));
        let near = if db.is_finite() { format!("{db:.0} dB from that") } else { "to the bit that".into() };
        format!("{line}; {name} computes it {near}")
    }

    /// The same for programs, in dB; `null` where nothing differs.
    pub(super) fn json(&self) -> Value {
        let Evidence { shape: [k, n], db: [y, dx, dw], .. } = &self.evidence;
        let mut told = json!({ "recipe": self.recipe, "in_features": k, "out_features": n, "db": { "y": y, "dx": dx, "dw": dw } });
        if let Some(OnCard { name, db: [y, dx, dw] }) = &self.card {
            told["card"] = json!({ "name": name, "db": { "y": y, "dx": dx, "dw": dw } });
        }
        told
    }
}
