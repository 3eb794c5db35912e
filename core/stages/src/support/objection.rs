//! What a workflow may not ask of a recipe or of a card, by the table.

use fp8flow_flow::Class;
use fp8flow_sdk::RecipeInfo;
use fp8flow_tensor::{Architecture, Card, Properties};
use serde_json::{Map, Value};

use super::{
    ADA, DeviceClass, Feature, HOPPER, MATRIX, NO_E5M2_FORWARD, ONE_PROCESS, ONLY_TENSORWISE, Row, row,
};

/// The keys that are objected to.
pub(crate) const ALL_GATHER: &str = "float8_all_gather";
const FORMAT: &str = "format";
const RECIPE: &str = "recipe";

/// Something in `[backend]` that does not go together, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) help: String,
    /// Whether to change the workflow or the machine.
    pub(crate) class: Class,
}

/// Objections to `recipe` of `plugin` on `card`.
pub(crate) fn on_card(plugin: &str, recipe: &str, card: &Card) -> Option<Objection> {
    let Properties { name, architecture, .. } = card.properties();
    let reason = unfit(plugin, recipe, *architecture)?;
    let fits = |row: &&Row| row.card.is_some() && unfit(row.plugin, row.recipe, *architecture).is_none();
    let fits: Vec<&str> = MATRIX.iter().filter(fits).map(|row| row.recipe).collect();
    Some(Objection {
        key: RECIPE,
        message: format!("recipe `{recipe}` does not run on {name}: it {reason}"),
        help: format!("Use one of {} on this card.", fits.join(", ")),
        class: Class::Missing,
    })
}

/// Why a recipe does not run on cards of `architecture`, if the table says so.
pub(crate) fn unfit(plugin: &str, recipe: &str, architecture: Architecture) -> Option<String> {
    let capability = match architecture {
        Architecture::Ada => ADA,
        Architecture::Hopper => HOPPER,
    };
    row(plugin, recipe, DeviceClass::Cuda)?.card?.objection(capability)
}

/// Objections to a workflow without FP8.
pub(crate) fn without_fp8(all_gather: bool) -> Option<Objection> {
    all_gather.then(|| Objection {
        key: ALL_GATHER,
        message: "FP8 all-gather needs FP8, and `plugin = \"none\"` leaves nothing in FP8 to gather".into(),
        help: "Remove `float8_all_gather`, or name an FP8 plugin.".into(),
        class: Class::Invalid,
    })
}

/// Objections to `recipe` of `plugin` with the `options` as they were written.
pub(crate) fn objections(
    plugin: &str,
    recipe: &RecipeInfo,
    options: &Map<String, Value>,
    all_gather: bool,
) -> Vec<Objection> {
    let mut found = Vec::new();
    let row = row(plugin, &recipe.name, DeviceClass::Cpu);
    if all_gather {
        // Of a recipe that is not in the table nothing is known but that it runs in one process.
        let verdict = row.map_or(Err(ONE_PROCESS), |row| row.verdict(Feature::AllGather));
        if let Err(reason) = verdict {
            let other = if reason == ONLY_TENSORWISE { " `tensorwise` has one scale a tensor." } else { "" };
            let message = format!("recipe `{}`: {reason}", recipe.name);
            let help = format!("Remove `float8_all_gather`.{other}");
            found.push(Objection { key: ALL_GATHER, message, help, class: Class::Invalid });
        }
    }
    let takes_format = recipe.options.iter().any(|option| option.name == FORMAT);
    let format = options.get(FORMAT).and_then(Value::as_str).unwrap_or_default();
    if takes_format && format.eq_ignore_ascii_case("e5m2") {
        found.push(Objection {
            key: "options.format",
            message: format!("`{format}` in the forward is not supported: {NO_E5M2_FORWARD}"),
            help: "Use `format = \"HYBRID\"`: E4M3 for activations and weights, E5M2 for gradients.".into(),
            class: Class::Invalid,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use fp8flow_sdk::{OptionField, OptionKind};
    use serde_json::json;

    use super::super::{HYBRID, TORCHAO};
    use super::*;

    fn recipe(name: &str, options: &[&str]) -> RecipeInfo {
        let field = |name: &&str| OptionField {
            name: (*name).into(),
            kind: OptionKind::Choice { values: vec!["HYBRID".into(), "E4M3".into()] },
            default: json!("HYBRID"),
            about: String::new(),
        };
        RecipeInfo { name: name.into(), about: String::new(), options: options.iter().map(field).collect() }
    }

    fn found(plugin: &str, recipe: &RecipeInfo, options: &Value, all_gather: bool) -> Vec<String> {
        let options = options.as_object().cloned().unwrap_or_default();
        let objections = objections(plugin, recipe, &options, all_gather);
        objections.into_iter().map(|o| format!("{}: {} {}", o.key, o.message, o.help)).collect()
    }

    #[test]
    fn all_gather_needs_fp8_then_one_scale_a_tensor_then_several_processes() {
        assert_eq!(without_fp8(false), None);
        assert!(without_fp8(true).unwrap().message.contains("needs FP8"));
        for (plugin, name, words) in [
            (TORCHAO, "rowwise", "needs one scale a tensor"),
            (TORCHAO, "rowwise_with_gw_hp", "needs one scale a tensor"),
            (HYBRID, "blockwise", "needs one scale a tensor"),
            (TORCHAO, "tensorwise", "nothing to gather"),
            (HYBRID, "delayed", "nothing to gather"),
            ("somebodys", "own", "nothing to gather"),
        ] {
            let recipe = recipe(name, &[]);
            assert!(found(plugin, &recipe, &json!({}), false).is_empty());
            let found = found(plugin, &recipe, &json!({}), true);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("float8_all_gather: ") && found[0].contains(words), "{found:?}");
            assert_eq!(found[0].contains("`tensorwise` has"), words.contains("one scale"), "{found:?}");
        }
    }

    #[test]
    fn e5m2_in_the_forward_is_refused_with_the_reason_and_the_format_to_use() {
        let with_format = recipe("delayed", &["margin", "format"]);
        for word in ["E5M2", "e5m2"] {
            let found = found(HYBRID, &with_format, &json!({ "format": word }), false);
            assert_eq!(found.len(), 1, "{found:?}");
            let known =
                ["options.format: ", word, "third mantissa bit", "E5M2 by E5M2", "format = \"HYBRID\""];
            assert!(known.iter().all(|words| found[0].contains(words)), "{found:?}");
        }
        assert!(found(HYBRID, &with_format, &json!({ "format": "HYBRID" }), false).is_empty());
        // Where there is no such option, that is what is wrong.
        assert!(found(TORCHAO, &recipe("rowwise", &[]), &json!({ "format": "E5M2" }), false).is_empty());
    }

    #[test]
    fn a_recipe_fits_the_cards_that_have_what_it_needs() {
        let hopper = "needs compute capability 9.0 or higher";
        assert_eq!(unfit(HYBRID, "blockwise", Architecture::Ada).as_deref(), Some(hopper));
        assert_eq!(unfit(HYBRID, "blockwise", Architecture::Hopper), None);
        assert_eq!(unfit("somebodys", "blockwise", Architecture::Ada), None);
    }
}
