//! The options of a recipe: a schema that the engine validates, prints and documents, and the values it hands over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A recipe as its backend presents it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeInfo {
    /// The name used in a workflow.
    pub name: String,
    /// One sentence on what it does.
    pub about: String,
    /// Its options.
    #[serde(default)]
    pub options: Vec<OptionField>,
}

/// One option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionField {
    /// The key in `[backend.options]`.
    pub name: String,
    /// Type and range.
    pub kind: OptionKind,
    /// The value where none is given.
    pub default: serde_json::Value,
    /// What it means.
    pub about: String,
}

/// Type and range of an option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OptionKind {
    /// `true` or `false`.
    Bool,
    /// A whole number from `min` to `max`.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A number from `min` to `max`.
    Number {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// One of these words.
    Choice {
        /// The words.
        values: Vec<String>,
    },
}

impl OptionKind {
    /// `value` as an option of this kind holds it, if it is of the type and in the range: whole numbers are numbers.
    pub fn admit(&self, value: &serde_json::Value) -> Option<serde_json::Value> {
        let fits = match self {
            Self::Bool => value.is_boolean(),
            Self::Integer { min, max } => value.as_i64().is_some_and(|x| (*min..=*max).contains(&x)),
            Self::Choice { values } => values.iter().any(|word| value == word),
            Self::Number { min, max } => {
                let number = value.as_f64().filter(|x| (*min..=*max).contains(x))?;
                return serde_json::Number::from_f64(number).map(Into::into);
            }
        };
        fits.then(|| value.clone())
    }
}

/// As the end of "expected …".
impl fmt::Display for OptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Choice { values } => {
                for (i, word) in values.iter().enumerate() {
                    let before = if i == 0 { "" } else { " | " };
                    write!(f, "{before}\"{word}\"")?;
                }
                Ok(())
            }
        }
    }
}

/// The values of a recipe's options, complete and checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options(pub serde_json::Map<String, serde_json::Value>);

impl Options {
    /// The boolean option `name`.
    pub fn bool(&self, name: &str) -> Result<bool> {
        self.get(name, serde_json::Value::as_bool, "true or false")
    }

    /// The whole-number option `name`.
    pub fn integer(&self, name: &str) -> Result<i64> {
        self.get(name, serde_json::Value::as_i64, "a whole number")
    }

    /// The number option `name`.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.get(name, serde_json::Value::as_f64, "a number")
    }

    /// The word option `name`.
    pub fn choice(&self, name: &str) -> Result<&str> {
        self.get(name, serde_json::Value::as_str, "a word")
    }

    fn get<'a, T>(
        &'a self,
        name: &str,
        read: impl Fn(&'a serde_json::Value) -> Option<T>,
        expected: &str,
    ) -> Result<T> {
        let value = self.0.get(name).ok_or_else(|| Error::protocol(format!("option `{name}` is missing")))?;
        read(value)
            .ok_or_else(|| Error::invalid(format!("option `{name}`: expected {expected}, found {value}")))
    }
}
