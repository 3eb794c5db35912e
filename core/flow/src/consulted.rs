//! What a stage looked at while it ran, beside its own keys and inputs: the seed, sections, what planning found out. Only
//! then is it known that its result depends on them, so that another recipe does not tokenize a dataset again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::plan::{PlannedStage, counting};
use crate::{Plan, Registry, digest, relocate};

/// The name of the workflow's seed among what was looked at.
pub(crate) const SEED: &str = "workflow.seed";

/// The name of the stage's facts among what was looked at; no section can have it.
pub(crate) const FACTS: &str = "facts.";

/// A name of what was looked at, and what was found.
pub(crate) type Consulted = BTreeMap<String, Value>;

/// What `stage` finds under each of `names`.
pub(crate) fn consult(
    plan: &Plan,
    registry: &Registry,
    binding: &Value,
    stage: &PlannedStage,
    names: &BTreeSet<String>,
) -> Consulted {
    names.iter().map(|name| (name.clone(), value(plan, registry, binding, stage, name))).collect()
}

/// What `stage` finds under `name`; null for nothing.
pub(crate) fn value(
    plan: &Plan,
    registry: &Registry,
    binding: &Value,
    stage: &PlannedStage,
    name: &str,
) -> Value {
    match name {
        SEED => plan.section("workflow").map_or(Value::Null, |section| section.params.json()["seed"].clone()),
        FACTS => {
            let mut facts = stage.facts.clone();
            relocate::forget(&mut facts, None, &plan.folder);
            digest::of_json(&facts).into()
        }
        name => {
            let Some(section) = plan.section(name) else { return Value::Null };
            let entry = registry.section_entries().iter().find(|entry| entry.name == name);
            let fields = entry.map_or(&[][..], |entry| &entry.fields);
            let mut found = Map::new();
            found.insert("values".into(), counting(fields, section.params.json()).into());
            found.insert("binding".into(), binding.get(name).cloned().unwrap_or_default());
            json!(found)
        }
    }
}
