//! Results of other runs: whether one is what a stage would make, and how it comes into a run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::begun::Begun;
use crate::manifest::{Manifest, Output};
use crate::plan::PlannedStage;
use crate::store::Store;
use crate::{Error, Plan, Registry, atomic, consulted, relocate};

/// The store as a plan sees it.
pub(crate) struct Cache<'a> {
    pub(crate) store: Store,
    pub(crate) plan: &'a Plan,
    pub(crate) registry: &'a Registry,
    pub(crate) binding: &'a Value,
}

/// What a job has to do with results of other runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// It takes what is there, and leaves its own.
    Both,
    /// It only leaves its own.
    Give,
    /// It is no run's, and leaves no trace.
    Neither,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Looked {
    /// A result that the stage would make, every byte of it verified.
    pub(crate) hit: Option<Manifest>,
    /// Why others that it would make cannot be used, in words, with the damaged object.
    pub(crate) damaged: Vec<(Manifest, PathBuf, String)>,
    /// Why the stage must run although its result is stored.
    pub(crate) occupied: Option<String>,
}

/// A state on the way of a stage, every byte of it verified.
pub(crate) struct StoredState {
    /// How many steps were done.
    pub(crate) step: u64,
    /// The run that made it.
    pub(crate) run: String,
    /// The files of the state, and of those before it.
    part: Vec<Output>,
    /// Files that grow with every step.
    grows: Vec<Output>,
}

impl Cache<'_> {
    /// Whether results of `stage` serve other runs.
    pub(crate) fn is_function(&self, stage: &PlannedStage) -> bool {
        self.registry.find(&stage.uses).is_none_or(|entry| entry.kind.is_function(&stage.params))
    }

    /// Looks for a result of what `stage` is `begun` with.
    pub(crate) fn look(&self, stage: &PlannedStage, begun: &Begun) -> Looked {
        let mut looked = Looked::default();
        for mut manifest in self.store.made_from(&begun.key()) {
            if !self.is_current(stage, &manifest) {
                continue;
            }
            if let Some((object, words)) = self.store.damage(&manifest) {
                looked.damaged.push((manifest, object, words));
                continue;
            }
            let dir = manifest.artifact.dir.clone();
            relocate::into(&mut manifest, &dir, &self.plan.folder);
            let mut there = manifest.wrote.iter().filter(|root| root.exists() || root.is_symlink());
            let other = there.find_map(|root| {
                let outputs = manifest.outputs.iter().filter(|output| output.path.starts_with(root));
                outputs.into_iter().find_map(|output| output.damage(&output.path))
            });
            if other.is_some() {
                looked.occupied = other;
                continue;
            }
            looked.hit = Some(manifest);
            break;
        }
        looked
    }

    /// Whether everything that the run of `manifest` looked at is what it was.
    fn is_current(&self, stage: &PlannedStage, manifest: &Manifest) -> bool {
        manifest.consulted.iter().all(|(name, value)| self.consult(stage, name) == *value)
            && manifest.read.iter().all(|outside| outside.difference(&self.plan.folder).is_none())
    }

    pub(crate) fn consult(&self, stage: &PlannedStage, name: &str) -> Value {
        consulted::value(self.plan, self.registry, self.binding, stage, name)
    }

    /// Brings a hit into the run in `run` as the result of `stage`: aside, then in one step.
    pub(crate) fn restore(
        &self,
        stage: &PlannedStage,
        begun: &Begun,
        mut manifest: Manifest,
        run: &Path,
    ) -> Result<Manifest, Error> {
        let _hold = self.store.share()?;
        let folder = run.join(&stage.name);
        let aside = fresh_aside(run, &stage.name)?;
        relocate::into(&mut manifest, &folder, &self.plan.folder);
        manifest.stage.clone_from(&stage.name);
        manifest.artifact.stage.clone_from(&stage.name);
        manifest.params.clone_from(stage.params.json());
        for output in manifest.outputs.iter().filter(|output| !output.is_outside()) {
            self.store.lend(output, &aside.join(&output.path))?;
        }
        for root in manifest.wrote.iter().filter(|root| !root.exists()) {
            self.restore_outside(&manifest, root)?;
        }
        begun.write(&aside)?;
        manifest.write(&aside)?;
        place(&aside, &folder)?;
        Ok(manifest)
    }

    /// Looks for the stored state that is furthest on the way of what `stage` is `begun` with.
    pub(crate) fn state(&self, stage: &PlannedStage, begun: &Begun) -> Option<StoredState> {
        let (end, kind) = (begun.steps()?, &self.registry.find(&stage.uses)?.kind);
        let entries = self.store.entries().into_iter().filter_map(|(_, manifest)| manifest);
        let on_the_way = entries
            .filter(|manifest| manifest.begun.is_on_the_way_of(begun) && self.is_current(stage, manifest));
        let states = on_the_way.flat_map(|manifest| {
            let inside = manifest.outputs.iter().filter(|output| !output.is_outside());
            let steps: BTreeSet<u64> = inside.filter_map(|output| kind.state_of(&output.path)).collect();
            let states = steps.into_iter().filter(|step| *step <= end);
            let state = |step| {
                let outputs = manifest.outputs.iter().filter(|output| !output.is_outside());
                let (part, grows) = outputs
                    .map(|output| (kind.state_of(&output.path), output.clone()))
                    .filter(|(of, _)| of.is_none_or(|of| of <= step))
                    .partition::<Vec<_>, _>(|(of, _)| of.is_some());
                let files = |list: Vec<(_, Output)>| list.into_iter().map(|(_, output)| output).collect();
                StoredState { step, run: manifest.run.clone(), part: files(part), grows: files(grows) }
            };
            states.map(state).collect::<Vec<_>>()
        });
        let mut states: Vec<StoredState> = states.collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.step));
        let whole = |state: &StoredState| {
            let mut files = state.part.iter().chain(&state.grows);
            files.all(|output| output.damage(&self.store.object(&output.blake3)).is_none())
        };
        states.into_iter().find(whole)
    }

    /// Brings a state into the run in `run`, for `stage` to go on from: as if it had been interrupted there.
    pub(crate) fn go_on_from(
        &self,
        stage: &PlannedStage,
        begun: &Begun,
        state: &StoredState,
        run: &Path,
    ) -> Result<(), Error> {
        let _hold = self.store.share()?;
        let aside = fresh_aside(run, &stage.name)?;
        for output in &state.part {
            self.store.lend(output, &aside.join(&output.path))?;
        }
        for output in &state.grows {
            self.store.copy(output, &aside.join(&output.path))?;
        }
        begun.write(&aside)?;
        place(&aside, &run.join(&stage.name))
    }

    /// Writes what `manifest` says of the file or folder `root`, which is not there.
    fn restore_outside(&self, manifest: &Manifest, root: &Path) -> Result<(), Error> {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        let aside = root.with_file_name(format!(".{name}.restored"));
        clear(&aside)?;
        let outputs = manifest.outputs.iter().filter(|output| output.path.starts_with(root));
        let restored = outputs.into_iter().try_for_each(|output| {
            let inner = output.path.strip_prefix(root).unwrap_or(Path::new(""));
            let to = if inner.as_os_str().is_empty() { aside.clone() } else { aside.join(inner) };
            self.store.lend(output, &to)
        });
        let placed = restored.and_then(|()| {
            sync(&aside)
                .and_then(|()| fs::rename(&aside, root))
                .and_then(|()| atomic::sync_parent(root))
                .map_err(Error::io("create", root))
        });
        if placed.is_err() {
            let _ = clear(&aside);
        }
        placed
    }
}

/// An empty folder in `run`, in which what `stage` will have is put together.
fn fresh_aside(run: &Path, stage: &str) -> Result<PathBuf, Error> {
    let aside = run.join(format!(".{stage}.new"));
    clear(&aside)?;
    fs::create_dir(&aside).map_err(Error::io("create", &aside))?;
    Ok(aside)
}

/// Lets `aside` take the place of `folder`, in one step.
fn place(aside: &Path, folder: &Path) -> Result<(), Error> {
    sync(aside).map_err(Error::io("sync", aside))?;
    clear(folder)?;
    fs::rename(aside, folder).map_err(Error::io("create", folder))?;
    atomic::sync_parent(folder).map_err(Error::io("sync", folder))
}

/// Removes whatever is at `path`.
pub(crate) fn clear(path: &Path) -> Result<(), Error> {
    let removed =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("clear", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the names below `path` outlast a crash.
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                sync(&entry.path())?;
            }
        }
    }
    File::open(path)?.sync_all()
}
