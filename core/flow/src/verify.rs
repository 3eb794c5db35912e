//! A finished run's stages once more, in a folder that is thrown away, and what comes of them held against what came of
//! them then.
//!
//! Each stage is given the very results that it was given, so that a stage whose bits differ is found by itself and not
//! because of the one before it. Nothing of the run is written to; what a stage writes outside the run goes into the same
//! folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::begun::Begun;
use crate::cache::{Cache, Exchange};
use crate::job::Job;
use crate::journal::Journal;
use crate::manifest::{Manifest, Output};
use crate::plan::PlannedStage;
use crate::recorded::Recorded;
use crate::scratch::Scratch;
use crate::store::Store;
use crate::{Class, Error, Field, Kind, Observer, Registry, StageError, digest, relocate};

/// A place where two results of a stage have other bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The stage.
    pub stage: String,
    /// The file, within the stage's folder or absolute, where it is one.
    pub file: Option<PathBuf>,
    /// The step after which it shows, where it has steps.
    pub step: Option<u64>,
    /// The tensor, where it is one.
    pub tensor: Option<String>,
    /// What is wrong, in words.
    pub what: String,
}

impl Difference {
    /// Other bytes in `file`.
    pub fn of_file(stage: &str, file: &Path, what: impl Into<String>) -> Self {
        let (stage, file) = (stage.to_owned(), Some(file.to_owned()));
        Self { stage, file, step: None, tensor: None, what: what.into() }
    }
}

/// Stages of a finished run, to be done again.
pub struct Again<'a> {
    recorded: &'a Recorded,
    registry: &'a Registry,
    journal: Arc<Journal>,
    cancel: Arc<AtomicBool>,
    // Last: everything above may have files in it.
    scratch: Scratch,
}

/// A stage that was done again.
#[derive(Debug)]
pub struct Redone {
    /// What it has made now, if it came to its end.
    manifest: Option<Manifest>,
    /// What it had made then.
    before: Manifest,
    /// The folder of the stage in the run.
    pub then: PathBuf,
    /// Its folder now.
    pub now: PathBuf,
}

impl<'a> Again<'a> {
    /// Makes a folder beside the run. `cancel` asks the stage at work to stop.
    pub fn new(
        recorded: &'a Recorded,
        registry: &'a Registry,
        observer: Arc<dyn Observer>,
        cancel: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let scratch = Scratch::beside(&recorded.folder)?;
        let journal = Arc::new(Journal::open(&scratch.path().join("events.jsonl"), observer)?);
        Ok(Self { recorded, registry, journal, cancel, scratch })
    }

    /// Fails if a file that one of the stages `names` has read outside the run holds something else now; names them all.
    pub fn inputs_are_the_same(&self, names: &[&str]) -> Result<(), Error> {
        let mut changed = BTreeSet::new();
        for name in names {
            let read = self.manifest(name)?.read;
            changed.extend(read.iter().filter_map(|outside| outside.difference(&self.recorded.plan.folder)));
        }
        if changed.is_empty() {
            return Ok(());
        }
        let changed = changed.into_iter().collect::<Vec<_>>().join("; ");
        Err(self.refused(format!("what it was made from is not there any more: {changed}")))
    }

    /// Does the stage `name` again and says where its result differs.
    pub fn verify(&self, name: &str) -> Result<Vec<Difference>, Error> {
        let redone = match self.redo(name, |_, _| Ok(()))? {
            Ok(redone) => redone,
            Err(damage) => return Ok(damage),
        };
        if !redone.is_finished() {
            let run = self.recorded.folder.clone();
            let why = "stopped while it was done again; nothing of that is kept".into();
            return Err(Error::NotAgain { run, class: Class::Interrupted, why });
        }
        let stage = self.stage(name)?;
        let outside = self.outside(stage);
        let differing = redone.differing(&outside);
        let found = match self.registry.find(&stage.uses) {
            Some(entry) => entry.kind.differences(name, &redone, differing),
            None => Ok(differing),
        };
        // A checkpoint is large, and the next stage may need the room.
        let cleared = fs::remove_dir_all(&redone.now);
        let places = outside.iter().filter(|(_, now)| now.exists());
        places.for_each(|(_, now)| _ = fs::remove_dir_all(now).or_else(|_| fs::remove_file(now)));
        cleared.map_err(Error::io("clear", &redone.now))?;
        found.map_err(|error| Error::Stage { run: self.recorded.folder.clone(), stage: name.into(), error })
    }

    /// Does the stage `name` again from what `prepare` puts into its folder (its first argument is the stage's folder in
    /// the run), or from nothing. The inner error: its inputs in the run are damaged.
    pub fn redo(
        &self,
        name: &str,
        prepare: impl FnOnce(&Path, &Path) -> Result<(), StageError>,
    ) -> Result<Result<Redone, Vec<Difference>>, Error> {
        let (plan, folder) = (&self.recorded.plan, &self.recorded.folder);
        let stage = self.stage(name)?;
        let before = self.manifest(name)?;
        let (mut given, mut inputs, mut damage) = (Vec::<Manifest>::new(), BTreeMap::new(), Vec::new());
        for (edge, from) in &stage.inputs {
            let mut input = self.manifest(from)?;
            let dir = folder.join(from);
            damage.extend(input.damage(&dir).map(|what| Difference {
                stage: from.clone(),
                file: None,
                step: None,
                tensor: None,
                what,
            }));
            relocate::into(&mut input, &dir, &plan.folder);
            inputs.insert(edge.clone(), input.result.clone());
            given.push(input);
        }
        if !damage.is_empty() {
            return Ok(Err(damage));
        }
        let fields = self.registry.find(&stage.uses).map_or(&[][..], |entry| &entry.fields);
        let begun = Begun::new(plan, self.registry, &self.recorded.record.binding, stage, inputs);
        let mut elsewhere = stage.clone();
        for ((key, _), (_, now)) in outside_keys(fields, stage).zip(self.outside(stage)) {
            elsewhere.params.set(key, now.display().to_string().into());
        }
        let index = plan.stages.iter().position(|other| other.name == name).unwrap_or(0);
        let (run, registry, journal, cancel) =
            (self.scratch.path(), self.registry, &self.journal, &self.cancel);
        let (id, exchange) = (self.recorded.record.id.as_str(), Exchange::Neither);
        let cache = &Cache { store: Store::of(run), plan, registry, binding: &self.recorded.record.binding };
        let stage = &elsewhere;
        let job = Job { plan, run, id, cache, exchange, registry, journal, cancel, stage, index, begun };
        let (then, now) = (folder.join(name), run.join(name));
        fs::create_dir_all(&now).map_err(Error::io("create", &now))?;
        job.begun.write(&now)?;
        prepare(&then, &now).map_err(|error| Error::Stage {
            run: folder.clone(),
            stage: name.into(),
            error,
        })?;
        let manifest = match job.work(&given, None) {
            Ok(manifest) => Some(manifest),
            // Whoever asked it to stop may have seen enough.
            Err(error) if error.class() == Class::Interrupted => None,
            Err(error) => return Err(error),
        };
        Ok(Ok(Redone { manifest, before, then, now }))
    }

    fn refused(&self, why: String) -> Error {
        Error::NotAgain { run: self.recorded.folder.clone(), class: Class::Invalid, why }
    }

    fn stage(&self, name: &str) -> Result<&PlannedStage, Error> {
        self.recorded.plan.stage(name).ok_or_else(|| {
            let names: Vec<&str> =
                self.recorded.plan.stages.iter().map(|stage| stage.name.as_str()).collect();
            self.refused(format!("it has no stage `{name}`; it has {}", names.join(", ")))
        })
    }

    fn manifest(&self, name: &str) -> Result<Manifest, Error> {
        let stage = self.stage(name)?;
        Manifest::read(&self.recorded.folder.join(&stage.name))
            .ok_or_else(|| self.refused(format!("the stage `{name}` has no readable stage.json")))
    }

    /// Places outside the run that the stage writes, and where it writes instead.
    fn outside(&self, stage: &PlannedStage) -> Vec<(PathBuf, PathBuf)> {
        let fields = self.registry.find(&stage.uses).map_or(&[][..], |entry| &entry.fields);
        // No stage has a name with a dot.
        let now = |key: &str| self.scratch.path().join(format!("{}.{key}", stage.name));
        outside_keys(fields, stage).map(|(key, then)| (then, now(key))).collect()
    }
}

/// Keys of paths that need not be there before a stage: those that it writes.
fn outside_keys<'a>(
    fields: &'a [Field],
    stage: &'a PlannedStage,
) -> impl Iterator<Item = (&'static str, PathBuf)> + 'a {
    let written = fields.iter().filter(|field| matches!(field.kind, Kind::Path { exists: false }));
    written.filter_map(|field| {
        let then = stage.params.get::<Option<PathBuf>>(field.name)?;
        Some((field.name, std::path::absolute(&then).unwrap_or(then)))
    })
}

impl Redone {
    /// Whether the stage came to its end.
    pub fn is_finished(&self) -> bool {
        self.manifest.is_some()
    }

    /// Files that differ in bytes, or that only one of the results has. `outside`: pairs of places that correspond.
    fn differing(&self, outside: &[(PathBuf, PathBuf)]) -> Vec<Difference> {
        let stage = &self.before.stage;
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let as_then = |path: &Path| {
            let moved = outside.iter().find_map(|(then, now)| Some(then.join(path.strip_prefix(now).ok()?)));
            moved.unwrap_or_else(|| path.to_owned())
        };
        let then: BTreeMap<PathBuf, &Output> =
            self.before.outputs.iter().map(|output| (output.path.clone(), output)).collect();
        let now: BTreeMap<PathBuf, &Output> =
            manifest.outputs.iter().map(|output| (as_then(&output.path), output)).collect();
        let paths: BTreeSet<&PathBuf> = then.keys().chain(now.keys()).collect();
        let mut differing = Vec::new();
        for path in paths {
            let what = match (then.get(path), now.get(path)) {
                (Some(_), None) => "it is not made again",
                (None, Some(_)) => "it was not made before",
                (Some(then), Some(now)) if (then.size, &then.blake3) != (now.size, &now.blake3) => {
                    "other bytes"
                }
                // Files outside the run may belong to a later run by now; the run's own must hold what they held.
                (Some(then), _) if then.path.is_absolute() => continue,
                (Some(then), _) => match digest::of_file(&self.then.join(path)) {
                    Ok((_, blake3)) if blake3 == then.blake3 => continue,
                    Ok(_) => "the run's file has other contents than it was written with",
                    Err(_) => "the run's file cannot be read",
                },
                (None, None) => continue,
            };
            differing.push(Difference::of_file(stage, path, what));
        }
        differing
    }
}
