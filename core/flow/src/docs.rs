//! The reference pages of sections and stages, from the field tables.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Field, Kind, Presence, Registry, code};

const MATRIX: &str = "
## `[matrix]`

One run for every combination of values. A key is dotted and quoted, its value a list: `\"stages.train.optimizer.lr\" = [1e-4, 2e-4]`.
`{point}` in any text of the workflow becomes the name of the point, `lr=1e-4`.
";

/// Every section, kind of stage and code of a finding, as Markdown.
pub fn markdown(registry: &Registry) -> String {
    let mut out = String::from("# Workflow reference\n");
    for section in registry.section_entries() {
        let _ = write!(out, "\n## `[{}]`\n\n{}\n", section.name, section.about);
        table(&mut out, &section.fields);
    }
    for entry in registry.stage_entries() {
        let kind = &*entry.kind;
        let _ = write!(
            out,
            "\n## `uses = \"{}\"`\n\n{} Makes `{}`.\n",
            kind.name(),
            kind.about(),
            kind.produces()
        );
        table(&mut out, &entry.fields);
    }
    out.push_str(MATRIX);
    out.push_str("\n## Codes\n\n| code | meaning |\n| --- | --- |\n");
    for (code, meaning) in code::ALL {
        let _ = writeln!(out, "| `{code}` | {meaning} |");
    }
    out
}

/// The keys of one kind of stage, for a terminal; `None` if there is none of that name.
pub fn text(registry: &Registry, name: &str) -> Option<String> {
    let entry = registry.find(name)?;
    let mut out = format!("{}: {}\n", entry.kind.name(), entry.kind.about());
    for (key, field) in flat("", &entry.fields) {
        let _ = write!(out, "\n  {key}\n      {}\n      {}; {}\n", field.about, field.kind, standing(field));
    }
    Some(out)
}

fn table(out: &mut String, fields: &[Field]) {
    if fields.is_empty() {
        return;
    }
    out.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for (key, field) in flat("", fields) {
        let kind = field.kind.to_string().replace('|', "\\|");
        let _ = writeln!(out, "| `{key}` | {kind} | {} | {} |", standing(field), field.about);
    }
}

/// Every key, inner ones dotted; a table stands for itself only by its keys.
fn flat<'a>(prefix: &str, fields: &'a [Field]) -> Vec<(String, &'a Field)> {
    let mut keys = Vec::new();
    for field in fields {
        let key = format!("{prefix}{}", field.name);
        match &field.kind {
            Kind::Table(inner) => keys.extend(flat(&format!("{key}."), inner)),
            kind => {
                let inner = kind.inner().map(|inner| flat(&format!("{key}[]."), inner));
                keys.push((key, field));
                keys.extend(inner.into_iter().flatten());
            }
        }
    }
    keys
}

fn standing(field: &Field) -> String {
    match &field.presence {
        Presence::Required => "required".into(),
        Presence::Optional(otherwise) => (*otherwise).into(),
        Presence::Default(Value::Object(map)) if map.is_empty() => "none".into(),
        Presence::Default(value) => format!("`{value}`"),
    }
}
