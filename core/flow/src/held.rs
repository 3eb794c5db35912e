//! A run held to a lock: everything that differs is found before it starts where that can be, and after each stage else.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::changes::differences;
use crate::manifest::Manifest;
use crate::pins::{self, Left, PinnedFile, PinnedStage};
use crate::{Error, Pins, Plan, Registry, digest};

/// A lock that a run is held to.
#[derive(Clone, Debug)]
pub struct Held {
    path: PathBuf,
    pins: Pins,
}

impl Held {
    /// Reads the lock in `path` and holds `plan` to it: its values, the revisions and plugins behind them, and the files
    /// that it reads. Names everything that differs.
    pub fn to(path: &Path, plan: &Plan, registry: &Registry, binding: &Value) -> Result<Self, Error> {
        if !path.exists() {
            let differences = vec!["there is no such file; `fp8flow lock` writes it".into()];
            return Err(Error::NotAsLocked { lock: path.to_owned(), differences });
        }
        let held = Self { path: path.to_owned(), pins: Pins::read(path)? };
        let mut found = held.pins.differences(plan, registry, binding);
        found.extend(held.pins.changed_files(plan));
        held.refuse(found).map(|()| held)
    }

    /// Fails with everything in which the result of `stage` is not the locked one.
    pub(crate) fn check(&self, stage: &str, manifest: &Manifest, workflow: &Path) -> Result<(), Error> {
        let Some(locked) = self.pins.stages.get(stage).map(|pinned| &pinned.left) else {
            return self.refuse(vec![format!("stages.{stage} is not in it")]);
        };
        let now = Left::of(manifest, workflow);
        if *locked == now {
            return Ok(());
        }
        let mut found = Vec::new();
        files(stage, "read", &locked.reads, &now.reads, &mut found);
        files(stage, "made", &locked.outputs, &now.outputs, &mut found);
        if found.is_empty() {
            found.push(format!("stages.{stage}: its files are the same, but not what it says of them"));
        }
        self.refuse(found)
    }

    fn refuse(&self, differences: Vec<String>) -> Result<(), Error> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::NotAsLocked { lock: self.path.clone(), differences })
    }
}

impl Pins {
    /// In what `plan` is not what is locked, in words with places; files are not looked at.
    pub fn differences(&self, plan: &Plan, registry: &Registry, binding: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |prefix: &str, key: &str, locked: &Value, now: &Value| {
            differences("", locked, now, &mut |inner, locked, now| {
                let dotted = |a: &str, b: &str| {
                    if a.is_empty() || b.is_empty() { a.to_owned() + b } else { format!("{a}.{b}") }
                };
                let place = plan.places.of(&dotted(key, inner));
                let place =
                    place.filter(|_| !key.is_empty()).map_or(String::new(), |place| format!(" ({place})"));
                let what = dotted(prefix, inner);
                found.push(format!("{what} is {} and was {}{place}", show(now), show(locked)));
            });
        };
        compare("", "", &self.machine, &pins::machine(plan, binding));
        let now = pins::sections(plan, registry, binding);
        for (name, section) in now.as_object().into_iter().flatten() {
            compare(name, name, &self.sections[name]["values"], &section["values"]);
        }
        for stage in &plan.stages {
            let name = format!("stages.{}", stage.name);
            let Some(locked) = self.stages.get(&stage.name) else { continue };
            let now = PinnedStage::new(stage, registry, locked.left.clone());
            let head = |pinned: &PinnedStage| json!({ "uses": pinned.uses, "revision": pinned.revision });
            compare(&name, &name, &head(locked), &head(&now));
            compare(&name, &name, &locked.inputs, &now.inputs);
            compare(&name, &name, &locked.values, &now.values);
        }
        found.extend(self.other_bounds(&now));
        // Of a part of the workflow nothing else is asked.
        let planned = |name: &str| !plan.only.is_empty() || plan.stage(name).is_some();
        found.extend(plan.stages.iter().filter(|stage| !self.stages.contains_key(&stage.name)).map(
            |stage| {
                let place = plan.places.of(&format!("stages.{}", stage.name));
                let place = place.map_or(String::new(), |place| format!(" ({place})"));
                format!("stages.{} is not in it{place}", stage.name)
            },
        ));
        let gone = self.stages.keys().filter(|name| !planned(name));
        found.extend(gone.map(|name| format!("stages.{name} is in it and no longer in the workflow")));
        found
    }

    /// In what the sections, as they are `now`, are bound to something else, in words: another plugin, or another build of it.
    fn other_bounds(&self, now: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for (name, section) in now.as_object().into_iter().flatten() {
            let bound = &section["bound"];
            differences(name, &self.sections[name]["bound"], bound, &mut |key, locked, now| {
                let inner = key.strip_prefix(name.as_str()).and_then(|key| key.strip_prefix('.'));
                let owner = inner.and_then(|inner| owner(bound, inner));
                let owner = owner.map_or(String::new(), |owner| format!(" of `{owner}`"));
                found.push(format!("{key}{owner} is {} and was {}", show(now), show(locked)));
            });
        }
        found
    }

    /// Stages whose results are others in `now`, in words.
    pub fn other_results(&self, now: &Self) -> Vec<String> {
        let other = self.stages.iter().filter(|(name, pinned)| {
            now.stages.get(*name).is_some_and(|now| now.left.result != pinned.left.result)
        });
        other.map(|(name, _)| format!("stages.{name} has another result")).collect()
    }

    /// Files outside the run that hold something else than is locked, in words.
    fn changed_files(&self, plan: &Plan) -> Vec<String> {
        let mut found = Vec::new();
        for (name, stage) in &self.stages {
            let now = stage.left.reads.iter().map(|file| {
                let digest = digest::of_file(&plan.folder.join(&file.path)).ok();
                let (size, blake3) = digest.unzip();
                PinnedFile { path: file.path.clone(), size, blake3 }
            });
            files(name, "reads", &stage.left.reads, &now.collect::<Vec<_>>(), &mut found);
        }
        found
    }
}

fn show(value: &Value) -> String {
    if value.is_null() { "nothing".into() } else { value.to_string() }
}

/// The name of what the key `inner` of `bound` belongs to, if it has one.
fn owner<'a>(bound: &'a Value, inner: &str) -> Option<&'a str> {
    let (path, key) = inner.rsplit_once('.')?;
    let owner = path.split('.').try_fold(bound, |value, key| value.get(key))?;
    owner["name"].as_str().filter(|_| key != "name")
}

/// Adds in words how files differ from those that are locked.
fn files(stage: &str, verb: &str, locked: &[PinnedFile], now: &[PinnedFile], found: &mut Vec<String>) {
    let other =
        |list: &[PinnedFile], file: &PinnedFile| list.iter().find(|other| other.path == file.path).cloned();
    let short = |file: &PinnedFile| match (&file.size, &file.blake3) {
        (Some(size), Some(blake3)) => format!("{size} bytes, blake3 {}", blake3.get(..12).unwrap_or(blake3)),
        _ => "nothing".into(),
    };
    for file in locked {
        let path = file.path.display();
        match other(now, file) {
            Some(now) if now == *file => {}
            Some(now) => {
                found.push(format!("stages.{stage} {verb} {path}: {} and was {}", short(&now), short(file)));
            }
            None => found.push(format!("stages.{stage} {verb} {path} no longer")),
        }
    }
    for file in now.iter().filter(|file| other(locked, file).is_none()) {
        found.push(format!("stages.{stage} {verb} {}, which is not in it", file.path.display()));
    }
}
