//! Why a result that is stored is not the one that a stage would make now: what has changed since, with its place.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::begun::Begun;
use crate::cache::Cache;
use crate::consulted::{FACTS, SEED};
use crate::manifest::Manifest;
use crate::places::TextPlace;
use crate::plan::PlannedStage;

/// One thing that has changed since a result was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What: a key as it is written, `optimizer.lr` of the stage or `backend.recipe`; an edge; a file; `plugin`.
    pub what: String,
    /// The value it had; null for none, and where there is no value to tell.
    pub before: Value,
    /// The value it has.
    pub now: Value,
    /// Where that is written, if it is.
    pub place: Option<TextPlace>,
    /// The same in words, without the place.
    pub words: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

impl Change {
    fn value(what: String, before: &Value, now: &Value, place: Option<TextPlace>) -> Self {
        let words = format!("{what} {} → {}", short(before), short(now));
        Self { what, before: before.clone(), now: now.clone(), place, words }
    }

    fn words(what: &str, words: String) -> Self {
        Self { what: what.into(), before: Value::Null, now: Value::Null, place: None, words }
    }
}

impl Cache<'_> {
    /// What has changed since the stored result that is nearest to what `stage` is `begun` with; `None` where nothing is
    /// known of such a stage. Edges in `unknown` are passed over: what they lead to is not made yet.
    pub(crate) fn changes(
        &self,
        stage: &PlannedStage,
        begun: &Begun,
        unknown: &[&str],
    ) -> Option<Vec<Change>> {
        let known = self.store.entries().into_iter().filter_map(|(_, manifest)| manifest);
        let known: Vec<Manifest> = known.filter(|manifest| manifest.uses == stage.uses).collect();
        let same_name = known.iter().any(|manifest| manifest.stage == stage.name);
        // What bears the name of another stage of the workflow is that one's.
        let others = |manifest: &Manifest| !same_name && self.plan.stage(&manifest.stage).is_none();
        let candidates = known.iter().filter(|manifest| manifest.stage == stage.name || others(manifest));
        let measured = candidates.map(|manifest| (self.since(stage, begun, unknown, manifest), manifest));
        let nearest =
            measured.min_by(|(a, x), (b, y)| a.len().cmp(&b.len()).then_with(|| y.finished.cmp(&x.finished)));
        let (mut changes, manifest) = nearest?;
        changes.extend(manifest.read.iter().filter_map(|outside| {
            let words = outside.difference(&self.plan.folder)?;
            Some(Change::words(&outside.path.display().to_string(), words))
        }));
        Some(changes)
    }

    fn since(
        &self,
        stage: &PlannedStage,
        begun: &Begun,
        unknown: &[&str],
        manifest: &Manifest,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let before = &manifest.begun;
        if before.revision != begun.revision {
            let words = format!("this version of fp8flow does {} in another way", stage.uses);
            changes.push(Change::words("revision", words));
        }
        for (edge, _) in stage.inputs.iter().filter(|(edge, _)| !unknown.contains(&edge.as_str())) {
            if before.inputs.get(edge) != begun.inputs.get(edge) {
                changes.push(Change::words(edge, format!("`{edge}` is another")));
            }
        }
        for (edge, _) in before.inputs.iter().filter(|(edge, _)| !begun.inputs.contains_key(*edge)) {
            if !unknown.contains(&edge.as_str()) {
                changes.push(Change::words(edge, format!("`{edge}` is not written any more")));
            }
        }
        let object = |map: &serde_json::Map<String, Value>| Value::from(map.clone());
        differences("", &object(&before.params), &object(&begun.params), &mut |key, before, now| {
            let place = self.plan.places.of(&format!("stages.{}.{key}", stage.name));
            changes.push(Change::value(key.into(), before, now, place));
        });
        differences("", &object(&before.machine), &object(&begun.machine), &mut |key, before, now| {
            changes.push(Change::value(key.into(), before, now, None));
        });
        for (name, before) in &manifest.consulted {
            let now = self.consult(stage, name);
            match name.as_str() {
                FACTS if *before != now => {
                    changes.push(Change::words(FACTS, "what planning finds out is another".into()));
                }
                FACTS => {}
                SEED => {
                    if *before != now {
                        changes.push(Change::value(name.clone(), before, &now, self.plan.places.of(name)));
                    }
                }
                section => {
                    differences("", &before["values"], &now["values"], &mut |key, before, now| {
                        let key = format!("{section}.{key}");
                        let place = self.plan.places.of(&key);
                        changes.push(Change::value(key, before, now, place));
                    });
                    differences("", &before["binding"], &now["binding"], &mut |key, before, now| {
                        let key = if key.is_empty() { section } else { key };
                        changes.push(Change::value(key.into(), before, now, None));
                    });
                }
            }
        }
        // It follows from keys, where there are any.
        if changes.len() > 1 {
            changes.retain(|change| change.what != FACTS);
        }
        changes
    }
}

/// Calls `found` for the innermost keys in which two values differ.
pub(crate) fn differences(
    key: &str,
    before: &Value,
    now: &Value,
    found: &mut dyn FnMut(&str, &Value, &Value),
) {
    match (before, now) {
        _ if before == now => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for inner in keys {
                let (a, b) = (a.get(inner).unwrap_or(&Value::Null), b.get(inner).unwrap_or(&Value::Null));
                let key = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
                differences(&key, a, b, found);
            }
        }
        _ => found(key, before, now),
    }
}

/// A value in a few characters.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".into(),
        Value::String(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return text[..12].to_owned();
        }
        value => value.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_innermost_keys_that_differ_are_found() {
        let mut found = Vec::new();
        let before = json!({ "a": 1, "b": { "x": [1, 2], "y": true }, "gone": "x" });
        let now = json!({ "a": 1, "b": { "x": [1, 3], "y": true }, "new": 2.0 });
        differences("", &before, &now, &mut |key, before, now| {
            found.push(Change::value(key.into(), before, now, None).to_string());
        });
        assert_eq!(found, ["b.x [1,2] → [1,3]", "gone \"x\" → nothing", "new nothing → 2.0"]);
    }
}
