//! A plugin with one of its recipes, and how the recipe casts the operands of its GEMMs.
//!
//! Formats, axes and rules come from [`Recipe::describe`], in the words of
//! [`fp8flow_sdk::scaled::Gemms::describe`]. What a recipe does not say there, or what the primitives cannot do, is left
//! out: a figure under a recipe's name must be of what the recipe does.

use std::sync::Arc;

use fp8flow_host::{Found, Plugin, Search, check_options};
use fp8flow_kernels::Fp8 as Format;
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_sdk::{Error, Kernels, Recipe, ScaleAxis};
use fp8flow_stages::{Engine, RecipeChoice};
use serde_json::{Map, Value};

use crate::BenchError;
use crate::line::{LeftOutLine, Line, Shape};

/// No FP8 at all.
const NONE: &str = "none";

/// A plugin with one of its recipes.
pub struct Fp8 {
    plugin: Arc<Plugin>,
    choice: RecipeChoice,
    about: Value,
    kernels: Option<Box<dyn Kernels>>,
}

/// How an operand is cast, as far as the primitives can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) format: Format,
    pub(crate) axis: ScaleAxis,
    pub(crate) power_of_two: bool,
    /// Whether the scale is that of earlier steps.
    pub(crate) delayed: bool,
}

impl Fp8 {
    /// The plugin called `backend` with its recipe `recipe`, or its first, with the recipe's own options; none for `none`.
    pub fn open(engine: &Engine, backend: &str, recipe: Option<&str>) -> Result<Option<Self>, BenchError> {
        if backend == NONE {
            return Ok(None);
        }
        let found = Search::new(&engine.plugin_paths, &[]).find(backend)?;
        Self::of(engine, &found, recipe).map(Some)
    }

    /// A plugin with its recipe `recipe`, or its first, with the recipe's own options.
    pub fn of(engine: &Engine, found: &Found, recipe: Option<&str>) -> Result<Self, BenchError> {
        let plugin = found.open(&engine.host)?;
        let first = plugin.recipes().first().map(|recipe| recipe.name.as_str()).unwrap_or_default();
        let name = recipe.unwrap_or(first).to_owned();
        Self::with(Arc::new(plugin), &name)
    }

    /// Every recipe of a plugin, each with its own options.
    pub fn all_of(engine: &Engine, found: &Found) -> Result<Vec<Self>, BenchError> {
        let plugin = Arc::new(found.open(&engine.host)?);
        plugin.recipes().iter().map(|recipe| Self::with(plugin.clone(), &recipe.name)).collect()
    }

    fn with(plugin: Arc<Plugin>, recipe: &str) -> Result<Self, BenchError> {
        let info = plugin.recipe_info(recipe)?;
        let options = check_options(info, &Map::new()).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Error::invalid(format!("defaults of recipe `{}`: {}", info.name, errors.join(", ")))
        })?;
        let choice = RecipeChoice { recipe: info.name.clone(), options };
        let configured = plugin.recipe(&choice.recipe, &choice.options)?;
        let about = configured.describe();
        configured.healthy()?;
        let kernels = plugin.kernels()?;
        Ok(Self { plugin, choice, about, kernels })
    }

    /// The plugin's name.
    pub fn backend(&self) -> String {
        self.plugin.name().to_owned()
    }

    /// The recipe's name.
    pub fn recipe(&self) -> String {
        self.choice.recipe.clone()
    }

    /// The recipe with its options.
    pub(crate) fn choice(&self) -> &RecipeChoice {
        &self.choice
    }

    /// The recipe, fresh.
    pub(crate) fn configured(&self) -> Result<Box<dyn Recipe>, BenchError> {
        Ok(self.plugin.recipe(&self.choice.recipe, &self.choice.options)?)
    }

    /// The plugin's primitives; in words, that it has none.
    pub(crate) fn kernels(&self) -> Result<&dyn Kernels, String> {
        self.kernels.as_deref().ok_or_else(|| format!("{} offers no primitives", self.plugin.name()))
    }

    /// That a case is not measured, and why.
    pub(crate) fn left_out(&self, what: &'static str, shape: Shape, why: String) -> Line {
        let (backend, recipe) = (Some(self.backend()), Some(self.recipe()));
        Line::LeftOut(LeftOutLine { what, shape, backend, recipe, left_out: why })
    }

    /// The cast of `operand` (`x`, `w`, `dy`) for `gemm` (`fprop`, `dgrad`, `wgrad`); in words, why there is none that
    /// the primitives could do.
    pub(crate) fn cast(&self, gemm: &str, operand: &str) -> Result<Cast, String> {
        read(&self.about, gemm, operand).map_err(|why| format!("{}: {why}", self.choice.recipe))
    }

    /// All its casts that the primitives can do.
    pub(crate) fn casts(&self) -> Vec<Cast> {
        let operands = [
            ("fprop", "x"),
            ("fprop", "w"),
            ("dgrad", "dy"),
            ("dgrad", "w"),
            ("wgrad", "dy"),
            ("wgrad", "x"),
        ];
        operands.into_iter().filter_map(|(gemm, operand)| self.cast(gemm, operand).ok()).collect()
    }
}

fn read(about: &Value, gemm: &str, operand: &str) -> Result<Cast, String> {
    if about[gemm] == "high_precision" {
        return Err(format!("{gemm} runs in high precision"));
    }
    let cast = &about[gemm][operand];
    let unknown = || format!("it does not describe how {operand} is cast for {gemm}");
    let text = |key: &str| cast[key].as_str().ok_or_else(unknown);
    if let Some(block) = cast["axis"].as_array() {
        let block: Vec<String> = block.iter().map(Value::to_string).collect();
        return Err(format!(
            "scales of {operand} for blocks of {} are not among the primitives",
            block.join(" × ")
        ));
    }
    let format = match text("format")? {
        "e4m3" => Format::E4m3,
        "e5m2" => Format::E5m2,
        _ => return Err(unknown()),
    };
    let axis = match text("axis")? {
        "row" => ScaleAxis::Row,
        "col" => ScaleAxis::Col,
        "tensor" => ScaleAxis::Tensor,
        _ => return Err(unknown()),
    };
    let rule = text("rule")?;
    let known = ScaleRule::ALL.into_iter().find(|known| known.name() == rule);
    let power_of_two = matches!(known, Some(ScaleRule::PowerOfTwo | ScaleRule::FinitePowerOfTwo));
    let delayed = rule == "delayed";
    if known.is_none() && !delayed {
        return Err(unknown());
    }
    Ok(Cast { format, axis, power_of_two, delayed })
}

#[cfg(test)]
mod tests {
    use fp8flow_sdk::scaled::{self, Dgrad, Fprop, Gemms, Granularity, Source, Wgrad};
    use serde_json::json;

    use super::*;

    fn described(x: scaled::Cast, wgrad: bool) -> Value {
        let wgrad = wgrad.then_some(Wgrad { dy: x, x });
        let gemms = Gemms { fprop: Fprop { x, w: x }, dgrad: Dgrad { dy: x, w: x }, wgrad };
        Value::Object(gemms.describe().into_iter().collect())
    }

    #[test]
    fn casts_are_read_as_the_sdk_describes_them() {
        let current = |granularity, rule| scaled::Cast {
            format: Format::E5m2,
            granularity,
            source: Source::Current(rule),
        };
        for (granularity, axis) in [
            (Granularity::Row, ScaleAxis::Row),
            (Granularity::Col, ScaleAxis::Col),
            (Granularity::Tensor, ScaleAxis::Tensor),
        ] {
            for rule in ScaleRule::ALL {
                let about = described(current(granularity, rule), true);
                let power_of_two = rule.name().ends_with("pow2");
                let cast = Cast { format: Format::E5m2, axis, power_of_two, delayed: false };
                for (gemm, operand) in [("fprop", "w"), ("dgrad", "dy"), ("wgrad", "x")] {
                    assert_eq!(read(&about, gemm, operand), Ok(cast), "{granularity:?}, {rule:?}");
                }
            }
        }
        let delayed =
            scaled::Cast { source: Source::Delayed, ..current(Granularity::Tensor, ScaleRule::Linear) };
        let read = read(&described(delayed, true), "fprop", "x").expect("it is described");
        assert!(read.delayed && !read.power_of_two);
    }

    #[test]
    fn what_the_primitives_cannot_do_is_said_in_words() {
        let blocks = scaled::Cast {
            format: Format::E4m3,
            granularity: Granularity::Blocks { rows: 1, cols: 128 },
            source: Source::Current(ScaleRule::FinitePowerOfTwo),
        };
        let why = |about: &Value, gemm| read(about, gemm, "x").expect_err("there is no such primitive");
        let about = described(blocks, false);
        assert_eq!(why(&about, "fprop"), "scales of x for blocks of 1 × 128 are not among the primitives");
        assert_eq!(why(&about, "wgrad"), "wgrad runs in high precision");
        let about = json!({ "fprop": { "x": { "format": "e3m4", "axis": "row", "rule": "amax_pow2" } } });
        assert_eq!(why(&about, "fprop"), "it does not describe how x is cast for fprop");
        assert_eq!(why(&json!({}), "wgrad"), "it does not describe how x is cast for wgrad");
    }
}
