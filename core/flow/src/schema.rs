//! The JSON Schema of a workflow (draft 4, which TOML editors read), from the field tables.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use crate::registry::StageEntry;
use crate::{Field, Kind, Presence, Registry, matrix};

/// The schema of a whole workflow.
pub fn of_workflow(registry: &Registry) -> Value {
    let mut properties = Map::new();
    for section in registry.section_entries() {
        properties.insert(section.name.into(), table(&section.fields, section.about, &[]));
    }
    let kinds: Map<String, Value> =
        registry.stage_entries().iter().map(|entry| (entry.kind.name().into(), stage(entry))).collect();
    let references: Vec<Value> =
        kinds.keys().map(|name| json!({ "$ref": format!("#/definitions/{name}") })).collect();
    properties.insert(
        "stages".into(),
        json!({
            "description": "The stages, by name.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": { "oneOf": references },
        }),
    );
    properties.insert(
        matrix::TABLE.into(),
        json!({
            "description": "One run for every combination of values: keys as `\"stages.train.optimizer.lr\"`, each with a list.",
            "type": "object",
        }),
    );
    json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "fp8flow workflow",
        "type": "object",
        "required": ["stages"],
        "additionalProperties": false,
        "properties": properties,
        "definitions": kinds,
    })
}

/// The schema of one kind of stage; `None` if there is none of that name.
pub fn of_stage(registry: &Registry, name: &str) -> Option<Value> {
    registry.find(name).map(stage)
}

fn stage(entry: &StageEntry) -> Value {
    let uses = json!({ "description": "The kind of stage.", "enum": [entry.kind.name()] });
    table(&entry.fields, entry.kind.about(), &[("uses", uses)])
}

fn table(fields: &[Field], about: &str, first: &[(&str, Value)]) -> Value {
    let mut properties: Map<String, Value> =
        first.iter().map(|(name, schema)| ((*name).into(), schema.clone())).collect();
    properties.extend(fields.iter().map(|field| (field.name.into(), self::field(field))));
    let required: Vec<&str> = first
        .iter()
        .map(|(name, _)| *name)
        .chain(fields.iter().filter(|field| field.presence == Presence::Required).map(|field| field.name))
        .collect();
    let mut schema = json!({
        "description": about,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    // Draft 4 allows no empty list here.
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn field(field: &Field) -> Value {
    let mut schema = match &field.kind {
        Kind::Table(fields) => table(fields, field.about, &[]),
        kind => self::kind(kind),
    };
    let about = match &field.presence {
        Presence::Optional(otherwise) => format!("{} By default: {otherwise}.", field.about),
        _ => field.about.to_owned(),
    };
    schema["description"] = about.into();
    if let (Presence::Default(value), false) = (&field.presence, matches!(field.kind, Kind::Table(_))) {
        schema["default"] = value.clone();
    }
    schema
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => {
            let mut schema = json!({ "type": "integer" });
            if *min != i64::MIN {
                schema["minimum"] = (*min).into();
            }
            if *max != i64::MAX {
                schema["maximum"] = (*max).into();
            }
            schema
        }
        Kind::Number { min, max } => {
            let mut schema = json!({ "type": "number" });
            for (bound, end, open) in
                [(min, "minimum", "exclusiveMinimum"), (max, "maximum", "exclusiveMaximum")]
            {
                match *bound {
                    Bound::Included(x) => schema[end] = x.into(),
                    Bound::Excluded(x) => {
                        schema[end] = x.into();
                        schema[open] = true.into();
                    }
                    Bound::Unbounded => {}
                }
            }
            schema
        }
        Kind::Text => json!({ "type": "string" }),
        Kind::Path { .. } | Kind::Edge(_) => json!({ "type": "string", "minLength": 1 }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::List { of, min, max } => {
            let mut schema = json!({ "type": "array", "items": self::kind(of) });
            if *min > 0 {
                schema["minItems"] = (*min).into();
            }
            if *max != usize::MAX {
                schema["maxItems"] = (*max).into();
            }
            schema
        }
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(self::kind).collect::<Vec<_>>() }),
        Kind::Table(fields) => table(fields, "", &[]),
        Kind::Map(of) => json!({ "type": "object", "additionalProperties": self::kind(of) }),
        Kind::Free => json!({ "type": "object" }),
    }
}
