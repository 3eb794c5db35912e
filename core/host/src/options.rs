//! A workflow's `[backend.options]` against the options a recipe has.

use std::fmt;

use fp8flow_sdk::{Options, RecipeInfo};
use serde_json::{Map, Value};

use crate::similar::{closest, quoted, suggestion};

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("option `{key}`: {problem}")]
pub struct OptionError {
    /// The key in `[backend.options]`.
    pub key: String,
    /// What is wrong.
    pub problem: OptionProblem,
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionProblem {
    /// The recipe has no such option.
    Unknown {
        /// The recipe.
        recipe: String,
        /// The option that was probably meant.
        similar: Option<String>,
        /// The options it has.
        known: Vec<String>,
    },
    /// The value is of another type, or outside the range.
    Value {
        /// Type and range.
        expected: String,
        /// The value.
        found: Value,
        /// The word that was probably meant, where words are expected.
        similar: Option<String>,
    },
}

impl fmt::Display for OptionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { recipe, similar, known } if known.is_empty() => {
                write!(f, "recipe `{recipe}` has no options{}", suggestion(similar.as_deref()))
            }
            Self::Unknown { recipe, similar, known } => {
                let known = quoted(known.iter().map(String::as_str));
                let similar = suggestion(similar.as_deref());
                write!(f, "recipe `{recipe}` has no such option (it has {known}){similar}")
            }
            Self::Value { expected, found, similar } => {
                write!(f, "expected {expected}, found {found}{}", suggestion(similar.as_deref()))
            }
        }
    }
}

/// All options of the recipe: those `given`, checked, and the defaults of the others; or everything that is wrong.
pub fn check_options(recipe: &RecipeInfo, given: &Map<String, Value>) -> Result<Options, Vec<OptionError>> {
    let mut errors = Vec::new();
    let mut options = Map::new();
    for option in &recipe.options {
        let value = given.get(&option.name).unwrap_or(&option.default);
        match option.kind.admit(value) {
            Some(value) => drop(options.insert(option.name.clone(), value)),
            None => errors.push(OptionError {
                key: option.name.clone(),
                problem: OptionProblem::Value {
                    expected: option.kind.to_string(),
                    found: value.clone(),
                    similar: similar_word(&option.kind, value),
                },
            }),
        }
    }
    for key in given.keys().filter(|key| !options.contains_key(*key)) {
        if recipe.options.iter().any(|option| option.name == *key) {
            continue;
        }
        let known: Vec<_> = recipe.options.iter().map(|option| option.name.clone()).collect();
        let similar = closest(key, known.iter().map(String::as_str)).map(str::to_owned);
        let problem = OptionProblem::Unknown { recipe: recipe.name.clone(), similar, known };
        errors.push(OptionError { key: key.clone(), problem });
    }
    if errors.is_empty() { Ok(Options(options)) } else { Err(errors) }
}

fn similar_word(kind: &fp8flow_sdk::OptionKind, value: &Value) -> Option<String> {
    let fp8flow_sdk::OptionKind::Choice { values } = kind else { return None };
    closest(value.as_str()?, values.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fp8flow_sdk::{OptionField, OptionKind};
    use serde_json::json;

    fn recipe() -> RecipeInfo {
        let option = |name: &str, kind, default: Value| OptionField {
            name: name.into(),
            kind,
            default,
            about: "For tests.".into(),
        };
        let words = ["most_recent", "max"].map(String::from).to_vec();
        RecipeInfo {
            name: "delayed".into(),
            about: "For tests.".into(),
            options: vec![
                option("margin", OptionKind::Number { min: 0.0, max: 8.0 }, json!(0.0)),
                option("history", OptionKind::Integer { min: 1, max: 1024 }, json!(16)),
                option("amax", OptionKind::Choice { values: words }, json!("max")),
                option("fused", OptionKind::Bool, json!(true)),
            ],
        }
    }

    fn check(given: Value) -> Result<Options, Vec<String>> {
        let Value::Object(given) = given else { panic!("not an object: {given}") };
        check_options(&recipe(), &given).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_filled_in_and_whole_numbers_are_numbers() {
        let options = check(json!({})).unwrap();
        assert_eq!(
            Value::Object(options.0),
            json!({"margin": 0.0, "history": 16, "amax": "max", "fused": true})
        );
        let options = check(json!({"fused": false, "margin": 2})).unwrap();
        assert_eq!(options.number("margin"), Ok(2.0));
        assert_eq!(options.0["margin"].to_string(), "2.0", "2 and 2.0 are one option");
        assert_eq!(options.bool("fused"), Ok(false));
        let keys: Vec<_> = options.0.keys().map(String::as_str).collect();
        assert_eq!(keys, ["margin", "history", "amax", "fused"], "the recipe's order, whatever was given");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let errors = check(json!({
            "histroy": 3, "margin": 9, "history": 2.5, "amax": "most_recen", "fused": "yes", "what": [],
        }));
        assert_eq!(
            errors.unwrap_err(),
            [
                "option `margin`: expected a number from 0 to 8, found 9",
                "option `history`: expected a whole number from 1 to 1024, found 2.5",
                "option `amax`: expected \"most_recent\" | \"max\", found \"most_recen\"; did you mean `most_recent`?",
                "option `fused`: expected true or false, found \"yes\"",
                "option `histroy`: recipe `delayed` has no such option \
                 (it has `margin`, `history`, `amax`, `fused`); did you mean `history`?",
                "option `what`: recipe `delayed` has no such option \
                 (it has `margin`, `history`, `amax`, `fused`)",
            ]
        );
        let bare = RecipeInfo { options: Vec::new(), ..recipe() };
        let given = [("margin".to_owned(), json!(1))].into_iter().collect();
        let errors = check_options(&bare, &given).unwrap_err();
        assert_eq!(errors[0].to_string(), "option `margin`: recipe `delayed` has no options");
    }
}
