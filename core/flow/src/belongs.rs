//! Where a key belongs that was written where nobody has it: a table too high or too low, another stage, another section.

use crate::Field;
use crate::registry::Registry;
use crate::syntax::{Table, Tree};

/// The section or stage that is being checked: its name in messages, and its keys.
#[derive(Clone)]
pub(crate) struct Within<'a> {
    pub(crate) name: String,
    pub(crate) fields: &'a [Field],
}

/// Places that are named at most.
const MOST: usize = 3;

/// Where `key` belongs, as a sentence: in the section or stage it was written in, else in others of the workflow, else
/// in a kind of stage that the workflow does not use.
pub(crate) fn belongs(
    key: &str,
    within: Option<&Within<'_>>,
    root: &Table,
    registry: &Registry,
) -> Option<String> {
    let mut places = Vec::new();
    if let Some(Within { name, fields }) = within {
        find(key, name, fields, &mut places);
    }
    if places.is_empty() {
        for section in registry.section_entries() {
            find(key, &format!("`[{}]`", section.name), &section.fields, &mut places);
        }
        let stages = root.get("stages").and_then(|stages| stages.node.table());
        for stage in stages.map(|stages| &stages.0[..]).unwrap_or_default() {
            let uses = stage.node.table().and_then(|table| table.get("uses"));
            let Some(Tree::Text(uses)) = uses.map(|uses| &uses.node.value) else { continue };
            let Some(entry) = registry.find(uses) else { continue };
            find(key, &format!("stage `{}` ({uses})", stage.key), &entry.fields, &mut places);
        }
    }
    if places.is_empty() {
        for entry in registry.stage_entries() {
            let kind = entry.kind.name();
            find(key, &format!("a stage that uses `{kind}`"), &entry.fields, &mut places);
        }
    }
    if places.is_empty() && key == "uses" {
        places.push("a table `[stages.…]`".into());
    }
    let more = places.len() > MOST;
    places.truncate(MOST);
    let (last, rest) = places.split_last()?;
    let words = match (rest, more) {
        ([], _) => last.clone(),
        (_, false) => format!("{} or {last}", rest.join(", ")),
        (_, true) => format!("{}, {last} or others", rest.join(", ")),
    };
    Some(format!("`{key}` belongs in {words}"))
}

/// Adds to `places` where `key` stands among `fields`, which are those of `owner`, and in tables within.
fn find(key: &str, owner: &str, fields: &[Field], places: &mut Vec<String>) {
    if fields.iter().any(|field| field.name == key) {
        places.push(owner.to_owned());
    }
    for field in fields {
        if let Some(inner) = field.kind.inner() {
            find(key, &format!("`{}` of {owner}", field.name), inner, places);
        }
    }
}
