//! What a type of value accepts, and how it is said in words.

use std::fmt;
use std::ops::Bound::{Excluded, Included, Unbounded};

use serde_json::{Map, Number, Value};

use crate::{Field, Kind};

impl Kind {
    /// Whether `value` is of this type and in range.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Integer { min, max } => value.as_i64().is_some_and(|n| (min..=max).contains(&&n)),
            Self::Number { .. } => value.as_f64().is_some_and(|x| self.number_in_range(x).is_some()),
            Self::Text | Self::Path { .. } | Self::Edge(_) => value.is_string(),
            Self::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::List { of, min, max } => value.as_array().is_some_and(|list| {
                (*min..=*max).contains(&list.len()) && list.iter().all(|v| of.accepts(v))
            }),
            Self::Either(kinds) => kinds.iter().any(|kind| kind.accepts(value)),
            Self::Map(of) => value.as_object().is_some_and(|map| map.values().all(|v| of.accepts(v))),
            Self::Table(_) | Self::Free => value.is_object(),
        }
    }

    /// Whether this is an edge that takes artifacts of the kind `made`.
    pub(crate) fn accepts_artifact(&self, made: &str) -> bool {
        matches!(self, Self::Edge(kinds) if kinds.is_empty() || kinds.contains(&made))
    }

    /// Whether values of this type name stages: an edge, or edges that the user names.
    pub(crate) fn is_edge(&self) -> bool {
        match self {
            Self::Edge(_) => true,
            Self::Map(of) => of.is_edge(),
            _ => false,
        }
    }

    /// `x` as JSON, if this is a number's type and `x` is in range.
    pub(crate) fn number_in_range(&self, x: f64) -> Option<Value> {
        let Self::Number { min, max } = self else { return None };
        let above = match *min {
            Included(low) => x >= low,
            Excluded(low) => x > low,
            Unbounded => true,
        };
        let below = match *max {
            Included(high) => x <= high,
            Excluded(high) => x < high,
            Unbounded => true,
        };
        // Zero has one spelling, so that `-0.0` is not another run.
        Number::from_f64(if x == 0.0 { 0.0 } else { x }).filter(|_| above && below).map(Value::from)
    }

    /// `value`, which is of this type, in the one spelling that checked values have: numbers as floats.
    pub(crate) fn normal(&self, value: &Value) -> Value {
        match (self, value) {
            (Self::Number { .. }, _) => {
                value.as_f64().and_then(|x| self.number_in_range(x)).unwrap_or_else(|| value.clone())
            }
            (Self::List { of, .. }, Value::Array(list)) => list.iter().map(|v| of.normal(v)).collect(),
            (Self::Map(of), Value::Object(map)) => {
                map.iter().map(|(key, v)| (key.clone(), of.normal(v))).collect::<Map<_, _>>().into()
            }
            (Self::Either(kinds), _) => kinds
                .iter()
                .find(|kind| kind.accepts(value))
                .map_or_else(|| value.clone(), |kind| kind.normal(value)),
            _ => value.clone(),
        }
    }

    /// The fields of the table, or of each table in the list, that this is.
    pub(crate) fn inner(&self) -> Option<&[Field]> {
        match self {
            Self::Table(fields) => Some(fields),
            Self::List { of, .. } => match &**of {
                Self::Table(fields) => Some(fields),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether some number is of this type.
    pub(crate) fn is_number(&self) -> bool {
        match self {
            Self::Integer { .. } | Self::Number { .. } => true,
            Self::Either(kinds) => kinds.iter().any(Self::is_number),
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min: i64::MIN, max: i64::MAX } => f.write_str("a whole number"),
            Self::Integer { min, max: i64::MAX } => write!(f, "a whole number from {min} up"),
            Self::Integer { min: i64::MIN, max } => write!(f, "a whole number up to {max}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Number { min, max } => match (min, max) {
                (Unbounded, Unbounded) => f.write_str("a number"),
                (Included(a), Unbounded) => write!(f, "a number from {a} up"),
                (Excluded(a), Unbounded) => write!(f, "a number above {a}"),
                (Unbounded, Included(b)) => write!(f, "a number up to {b}"),
                (Unbounded, Excluded(b)) => write!(f, "a number below {b}"),
                (Included(a), Included(b)) => write!(f, "a number from {a} to {b}"),
                (Included(a), Excluded(b)) => write!(f, "a number from {a} to below {b}"),
                (Excluded(a), Included(b)) => write!(f, "a number above {a} and up to {b}"),
                (Excluded(a), Excluded(b)) => write!(f, "a number above {a} and below {b}"),
            },
            Self::Text => f.write_str("a string"),
            Self::Path { exists: false } => f.write_str("a path"),
            Self::Path { exists: true } => f.write_str("the path of something that exists"),
            Self::Choice(words) => either(f, words.iter().map(|word| format!("`{word}`")), " or "),
            Self::List { of, min: 0, max: usize::MAX } => write!(f, "a list, each {of}"),
            Self::List { of, min, max: usize::MAX } => write!(f, "a list of at least {min}, each {of}"),
            Self::List { of, min, max } if min == max => write!(f, "a list of {min}, each {of}"),
            Self::List { of, min, max } => write!(f, "a list of {min} to {max}, each {of}"),
            Self::Either(kinds) => either(f, kinds.iter().map(ToString::to_string), ", or "),
            Self::Table(_) | Self::Free => f.write_str("a table"),
            Self::Map(of) => write!(f, "a table of names, each with {of}"),
            Self::Edge([]) => f.write_str("the name of a stage"),
            Self::Edge(kinds) => {
                f.write_str("the name of a stage that makes ")?;
                either(f, kinds.iter().map(|kind| format!("`{kind}`")), " or ")
            }
        }
    }
}

/// `a`, `a or b`, `a, b or c`; `or` is the word before the last.
fn either(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = String>, or: &str) -> fmt::Result {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        None => Ok(()),
        Some((only, [])) => f.write_str(only),
        Some((last, rest)) => write!(f, "{}{or}{last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::above;

    #[test]
    fn types_are_said_in_words() {
        for (kind, words) in [
            (Kind::integer(..), "a whole number"),
            (Kind::integer(1..), "a whole number from 1 up"),
            (Kind::integer(1..65), "a whole number from 1 to 64"),
            (Kind::number(above(0.0)), "a number above 0"),
            (Kind::number(0.0..1.0), "a number from 0 to below 1"),
            (Kind::Choice(&["a", "b", "c"]), "`a`, `b` or `c`"),
            (Field::numbers("betas", 0.0..1.0, 2..=2).kind, "a list of 2, each a number from 0 to below 1"),
            (Field::strings("skip").kind, "a list, each a string"),
            (Field::amount("n").kind, "a whole number from 0 up, or a number from 0 to 1"),
            (Kind::Edge(&["model"]), "the name of a stage that makes `model`"),
            (Field::edges("inputs", &[]).kind, "a table of names, each with the name of a stage"),
        ] {
            assert_eq!(kind.to_string(), words);
        }
    }

    #[test]
    fn a_number_is_finite_and_has_one_spelling() {
        let any = Kind::number(..);
        assert_eq!(any.number_in_range(f64::NAN), None);
        assert_eq!(any.number_in_range(f64::INFINITY), None);
        assert_eq!(any.number_in_range(-0.0).map(|v| v.to_string()), Some("0.0".into()));
        assert_eq!(any.normal(&1.into()).to_string(), "1.0");
    }
}
