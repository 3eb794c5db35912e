//! Taking the parts of a row, with words for what was expected and what was found.

use serde_json::{Map, Value};

use super::Record;
use crate::report::Reason;

/// A well-formed row: usable, or why not.
pub(super) type Parsed = Result<Record, Reason>;

/// A row of a wrong shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Shape {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

/// A value in a few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// `text` quoted, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() { format!("`{cut}…`") } else { format!("`{cut}`") }
}

fn keys(object: &Map<String, Value>) -> String {
    let names: Vec<String> = object.keys().take(8).map(|key| quoted(key)).collect();
    match names.len() {
        0 => "an empty object".into(),
        shown if shown < object.len() => format!("the keys {} and others", names.join(", ")),
        _ => format!("the keys {}", names.join(", ")),
    }
}

/// The object that `what` must be.
pub(super) fn object(value: Value, what: &str) -> Result<Map<String, Value>, Shape> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Shape::new(format!("{what} to be an object"), describe(&other))),
    }
}

/// The value of `key`, which must be there.
pub(super) fn required(object: &mut Map<String, Value>, key: &str) -> Result<Value, Shape> {
    object.get_mut(key).map(Value::take).ok_or_else(|| Shape::new(format!("the key `{key}`"), keys(object)))
}

/// The value of `key`, unless it is missing or null.
pub(super) fn optional(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    object.get_mut(key).map(Value::take).filter(|value| !value.is_null())
}

/// The string that `what` must be.
pub(super) fn string(value: Value, what: &str) -> Result<String, Shape> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Shape::new(format!("{what} to be a string"), describe(&other))),
    }
}

/// The array that `what` must be.
pub(super) fn array(value: Value, what: &str) -> Result<Vec<Value>, Shape> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(Shape::new(format!("{what} to be an array"), describe(&other))),
    }
}

/// The string under `key`, which must be there.
pub(super) fn required_string(object: &mut Map<String, Value>, key: &str) -> Result<String, Shape> {
    string(required(object, key)?, &format!("`{key}`"))
}

/// The string under `key`, unless it is missing, null or empty.
pub(super) fn optional_string(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Shape> {
    let text = optional(object, key).map(|value| string(value, &format!("`{key}`"))).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// Functions on offer under `tools`: a string, or JSON written out.
pub(super) fn tools(object: &mut Map<String, Value>) -> Result<Option<String>, Shape> {
    match optional(object, "tools") {
        None => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(items)) if items.is_empty() => Ok(None),
        Some(value @ (Value::Array(_) | Value::Object(_))) => Ok(Some(value.to_string())),
        Some(other) => Err(Shape::new("`tools` to be a string or an array", describe(&other))),
    }
}
