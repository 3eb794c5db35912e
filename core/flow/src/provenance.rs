//! `manifest.json` of a finished run: what was made, from what, how and by whom, in the shape of an in-toto statement with a
//! SLSA provenance predicate, so that tools that know these can file, sign and check it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::manifest::{Manifest, Output};
use crate::pins;
use crate::record::Record;
use crate::{Error, Plan, Registry, atomic, digest};

/// Its name in a run's folder.
const FILE: &str = "manifest.json";

/// What is promised about the bytes of a result, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The same on every machine, for any number of threads and after any interruption.
    Portable,
    /// The same on the same kind of device.
    Device,
    /// Written down: what went in and what came out has digests, and nobody promises that it comes out again.
    Recorded,
}

/// Writes the manifest of the run in `folder`; `manifests` in the order of the stages.
pub(crate) fn write(
    folder: &Path,
    plan: &Plan,
    registry: &Registry,
    record: &Record,
    manifests: &[Manifest],
) -> Result<(), Error> {
    atomic::write_json(&folder.join(FILE), &statement(plan, registry, record, manifests))
}

fn statement(plan: &Plan, registry: &Registry, record: &Record, manifests: &[Manifest]) -> Value {
    let tiers = tiers(plan, registry);
    let stages = plan.stages.iter().zip(manifests).map(|(stage, manifest)| {
        let about = json!({
            "uses": stage.uses,
            "revision": manifest.begun.revision,
            "inputs": stage.inputs.iter().cloned().map(|(edge, name)| (edge, name.into())).collect::<Map<_, _>>(),
            "result": manifest.result,
            "made_by": manifest.run,
            "finished": manifest.finished,
            "seconds": manifest.seconds,
            "tier": tiers[stage.name.as_str()],
        });
        (stage.name.clone(), about)
    });
    let params = |stage: &crate::PlannedStage| (stage.name.clone(), stage.params.json().clone().into());
    let outputs = |pick: fn(&Manifest) -> Vec<&Output>| -> Vec<Value> {
        manifests
            .iter()
            .flat_map(|manifest| pick(manifest).into_iter().map(|output| product(manifest, output)))
            .collect()
    };
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": outputs(|manifest| manifest.counting().collect()),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:fp8flow:run:v1",
                "externalParameters": {
                    "workflow": plan.name,
                    "sets": plan.sets,
                    "point": plan.point,
                    "only": plan.only,
                    "stages": plan.stages.iter().map(params).collect::<Map<_, _>>(),
                },
                "internalParameters": {
                    "machine": pins::machine(plan, &record.binding),
                    "sections": pins::sections(plan, registry, &record.binding),
                },
                "resolvedDependencies": materials(plan, manifests),
            },
            "runDetails": {
                "builder": { "id": "urn:fp8flow", "version": { "fp8flow": record.environment["fp8flow"] } },
                "metadata": { "invocationId": record.id, "startedOn": record.started, "finishedOn": crate::time::now() },
                "byproducts": outputs(|manifest| {
                    let counts: Vec<&Output> = manifest.counting().collect();
                    manifest.outputs.iter().filter(|output| !counts.contains(output)).collect()
                }),
            },
            // Extensions bear a prefix.
            "fp8flow_tier": tiers.values().max(),
            "fp8flow_stages": stages.collect::<Map<_, _>>(),
            "fp8flow_environment": record.environment,
        },
    })
}

/// The workflow's text, and every file outside the run that was read, each once.
fn materials(plan: &Plan, manifests: &[Manifest]) -> Vec<Value> {
    let text = plan.path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = BTreeMap::from([(text.into_owned(), digest::of_bytes(plan.text.as_bytes()))]);
    for outside in manifests.iter().flat_map(|manifest| &manifest.read) {
        if let Some(found) = &outside.found {
            files.insert(outside.path.display().to_string(), found.blake3.clone());
        }
    }
    files.into_iter().map(|(name, blake3)| json!({ "name": name, "digest": { "blake3": blake3 } })).collect()
}

fn product(manifest: &Manifest, output: &Output) -> Value {
    // What lies outside the run, by its place from the workflow's folder.
    let outside = output.path.strip_prefix(&manifest.workflow).ok().map(Path::to_owned);
    let name = outside.unwrap_or_else(|| Path::new(&manifest.stage).join(&output.path));
    json!({ "name": name, "digest": { "blake3": output.blake3 } })
}

/// What is promised about each stage: no more than about what it is made from.
fn tiers<'a>(plan: &'a Plan, registry: &Registry) -> BTreeMap<&'a str, Tier> {
    let mut tiers: BTreeMap<&str, Tier> = BTreeMap::new();
    for stage in &plan.stages {
        let own = registry.find(&stage.uses).map_or(Tier::Recorded, |entry| entry.kind.tier());
        let before = stage.inputs.iter().filter_map(|(_, name)| tiers.get(name.as_str()));
        let tier = before.copied().fold(own, Tier::max);
        tiers.insert(&stage.name, tier);
    }
    tiers
}
