//! Checkpoints that are whole or absent, whatever happens to the process or the machine.
//!
//! A checkpoint is a folder that Hugging Face tools can load (`config.json`, `model.safetensors` with the f32 masters)
//! plus what a run needs to go on: `optimizer.safetensors`, `recipe.safetensors` where the recipe keeps state,
//! `state.json`, and `MANIFEST.json` with the size and digest of each file. It is written aside, flushed to the disk,
//! given its manifest and then its name; only after that are older ones removed. What a crash leaves behind either
//! has a manifest that verifies or is not used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use fp8flow_kernels::NUMERICS_REVISION;
use fp8flow_model::{
    Decoder, DecoderError, NamedTensor, Parameters, SafeFile, StoredType, TensorData, write_safetensors,
};
use fp8flow_sdk::{ErrorKind, StateDict};
use fp8flow_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{TrainError, room};

/// The f32 masters, in a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// Both moments, in a checkpoint.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// State of the recipe, in a checkpoint whose recipe keeps some.
pub const RECIPE: &str = "recipe.safetensors";
const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
const MANIFEST: &str = "MANIFEST.json";

/// What is saved, borrowed from a run.
pub(crate) struct Snapshot<'a> {
    pub(crate) state: State,
    pub(crate) config: &'a Map<String, Value>,
    pub(crate) parameters: &'a Parameters,
    pub(crate) moments: [&'a Parameters; 2],
    pub(crate) recipe: StateDict,
}

/// The small part of a run's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// What every bit of the run depends on; another run's checkpoint is not continued.
    pub identity: String,
    /// The revision of the arithmetic.
    pub numerics_revision: u32,
}

impl State {
    pub(crate) fn new(step: u64, identity: &str) -> Self {
        Self { step, identity: identity.to_owned(), numerics_revision: NUMERICS_REVISION }
    }
}

/// A checkpoint on disk whose every file was verified.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
    /// Whether state of a recipe is among its files.
    recipe: bool,
}

/// What a recipe has saved, and the file it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeState {
    path: PathBuf,
    state: StateDict,
}

impl RecipeState {
    /// The largest file that is read: far more than any history of maxima needs.
    const MOST: u64 = 1 << 30;

    /// Reads a `recipe.safetensors`, of any checkpoint.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let path = path.to_owned();
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(Self::MOST + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(TrainError::io(&path, "read"))?;
        let wrong = |what: String| TrainError::Checkpoint { path: path.clone(), what };
        if bytes.len() as u64 > Self::MOST {
            return Err(wrong(format!("no recipe keeps more than {} bytes of state", Self::MOST)));
        }
        let state = StateDict::from_safetensors(&bytes).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { path, state })
    }

    /// Gives it to the recipe of `decoder`, which may refuse it.
    pub fn restore(&self, decoder: &mut Decoder) -> Result<(), TrainError> {
        decoder.restore_recipe(&self.state).map_err(|error| match error {
            DecoderError::Backend(error) if error.kind == ErrorKind::Invalid => TrainError::Checkpoint {
                path: self.path.clone(),
                what: format!("the recipe refuses this state: {error}"),
            },
            error => error.into(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    step: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// The number of steps after which the checkpoint in `folder` was saved, by its name.
pub fn step_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The checkpoints in a folder.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints in `folder`, of which the newest `keep` (at least one) are kept.
    pub fn new(folder: PathBuf, keep: usize) -> Self {
        Self { folder, keep: keep.max(1) }
    }

    /// Creates the folder and removes what an interrupted save has left.
    pub(crate) fn prepare(&self) -> Result<(), TrainError> {
        fs::create_dir_all(&self.folder).map_err(TrainError::io(&self.folder, "create"))?;
        for path in self
            .entries()?
            .into_iter()
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-")))
        {
            fs::remove_dir_all(&path).map_err(TrainError::io(&path, "remove"))?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, TrainError> {
        let listed = fs::read_dir(&self.folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
        listed.map_err(TrainError::io(&self.folder, "list"))
    }

    /// Folders that bear a checkpoint's name, oldest first.
    fn named(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let mut named: Vec<(u64, PathBuf)> =
            self.entries()?.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect();
        named.sort_unstable();
        Ok(named)
    }

    /// The steps of the checkpoints that have a manifest, oldest first; what their files hold is not looked at.
    pub fn steps(&self) -> Result<Vec<u64>, TrainError> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let whole = self.named()?.into_iter().filter(|(_, path)| path.join(MANIFEST).exists());
        Ok(whole.map(|(step, _)| step).collect())
    }

    /// The newest checkpoint that verifies; `passed_over` hears of newer ones that do not.
    pub fn newest(&self, mut passed_over: impl FnMut(&Path, &str)) -> Result<Option<Checkpoint>, TrainError> {
        for (step, path) in self.named()?.into_iter().rev() {
            match verify(&path, step) {
                Ok((state, recipe)) => return Ok(Some(Checkpoint { path, state, recipe })),
                Err(reason) => passed_over(&path, &reason),
            }
        }
        Ok(None)
    }

    /// The folder of the checkpoint after `step`, whether it is there or not.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    /// Fails with what is wrong if the checkpoint after `step` is not whole.
    pub fn verify(&self, step: u64) -> Result<(), String> {
        verify(&self.path(step), step).map(drop)
    }

    /// Fails unless there is room for all that will lie here at once: the newest is whole before the oldest is removed.
    /// `often`: whether any is saved but the last.
    pub(crate) fn expect_room(&self, parameters: &Parameters, often: bool) -> Result<(), TrainError> {
        let there = self.steps()?.len().min(self.keep);
        let more = if often { self.keep + 1 - there } else { 1 };
        room::expect(&self.folder, room::of_checkpoint(parameters).saturating_mul(more as u64))
    }

    /// Saves a checkpoint and then removes the oldest; returns its folder.
    pub(crate) fn save(&self, snapshot: &Snapshot<'_>) -> Result<PathBuf, TrainError> {
        let name = name_of(snapshot.state.step);
        let aside = self.folder.join(format!(".tmp-{name}-{}", std::process::id()));
        let path = self.folder.join(name);
        room::expect(&self.folder, room::of_checkpoint(snapshot.parameters))?;
        fs::create_dir(&aside).map_err(TrainError::io(&aside, "create"))?;
        let written = write_all(&aside, snapshot).and_then(|()| {
            if path.exists() {
                // Verification has passed it over, or it would have been continued from.
                fs::remove_dir_all(&path).map_err(TrainError::io(&path, "replace"))?;
            }
            fs::rename(&aside, &path).map_err(TrainError::io(&path, "create"))?;
            sync_folder(&self.folder)
        });
        if let Err(error) = written {
            // The error that led here says more than a second one would.
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
        let named = self.named()?;
        for (_, old) in &named[..named.len().saturating_sub(self.keep)] {
            // Out of the way in one step, so that no half-removed folder bears a checkpoint's name.
            let leaving = self.folder.join(format!(".tmp-old-{}", std::process::id()));
            fs::rename(old, &leaving)
                .and_then(|()| fs::remove_dir_all(&leaving))
                .map_err(TrainError::io(old, "remove"))?;
        }
        Ok(path)
    }
}

fn write_all(folder: &Path, snapshot: &Snapshot<'_>) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    let model = snapshot.parameters.iter();
    let model = model.map(|(spec, tensor)| named(spec.name.clone(), &spec.shape, tensor));
    let mut add = |name: &str, tensors: Vec<NamedTensor<'_>>| -> Result<(), TrainError> {
        let written = write_safetensors(&folder.join(name), tensors, &[("format", "pt")])?;
        let entry = Entry { bytes: written.bytes, blake3: written.digest.to_hex().to_string() };
        files.insert(name.to_owned(), entry);
        Ok(())
    };
    add(MODEL, model.collect())?;
    let moments = ["m", "v"].into_iter().zip(snapshot.moments);
    let moments = moments.flat_map(|(moment, parameters)| {
        parameters
            .iter()
            .map(move |(spec, tensor)| named(format!("{moment}.{}", spec.name), &spec.shape, tensor))
    });
    add(OPTIMIZER, moments.collect())?;
    let mut small = vec![(STATE, json(&snapshot.state)), (CONFIG, json(snapshot.config))];
    if !snapshot.recipe.0.is_empty() {
        small.push((RECIPE, snapshot.recipe.to_safetensors().map_err(DecoderError::Backend)?));
    }
    for (name, bytes) in small {
        write_file(&folder.join(name), &bytes)?;
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        files.insert(name.to_owned(), Entry { bytes: bytes.len() as u64, blake3 });
    }
    write_file(&folder.join(MANIFEST), &json(&Manifest { step: snapshot.state.step, files }))?;
    sync_folder(folder)
}

fn named<'a>(name: String, shape: &[usize], tensor: &'a Tensor) -> NamedTensor<'a> {
    NamedTensor { name, dtype: StoredType::F32, shape: shape.to_vec(), data: TensorData::Tensor(tensor) }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data becomes JSON");
    text.push(b'\n');
    text
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(TrainError::io(path, "write"))
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(TrainError::io(folder, "flush"))
}

/// Compares every file with the manifest; the state, and whether there is one of a recipe. The error says what is wrong.
fn verify(folder: &Path, step: u64) -> Result<(State, bool), String> {
    let read = |name: &str| fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"));
    let manifest: Manifest =
        serde_json::from_slice(&read(MANIFEST)?).map_err(|error| format!("{MANIFEST}: {error}"))?;
    if manifest.step != step {
        return Err(format!("{MANIFEST} is of step {}", manifest.step));
    }
    for required in [MODEL, OPTIMIZER, STATE, CONFIG] {
        if !manifest.files.contains_key(required) {
            return Err(format!("{MANIFEST} does not list {required}"));
        }
    }
    for (name, entry) in &manifest.files {
        if Path::new(name).components().count() != 1 || name.starts_with('.') {
            return Err(format!("{MANIFEST} lists `{name}`, which is no file name"));
        }
        let path = folder.join(name);
        let bytes = fs::metadata(&path).map_err(|error| format!("{name}: {error}"))?.len();
        if bytes != entry.bytes {
            return Err(format!("{name} has {bytes} bytes, {} were written", entry.bytes));
        }
        let mut hasher = blake3::Hasher::new();
        File::open(&path)
            .and_then(|file| std::io::copy(&mut &file, &mut hasher))
            .map_err(|error| format!("{name}: {error}"))?;
        if hasher.finalize().to_hex().as_str() != entry.blake3 {
            return Err(format!("{name} is not what was written"));
        }
    }
    let state = serde_json::from_slice(&read(STATE)?).map_err(|error| format!("{STATE}: {error}"))?;
    Ok((state, manifest.files.contains_key(RECIPE)))
}

impl Checkpoint {
    /// Reads masters and moments into memory that is there, and gives the recipe of `decoder` its state back.
    pub(crate) fn load(
        &self,
        parameters: &mut Parameters,
        moments: [&mut Parameters; 2],
        decoder: &mut Decoder,
    ) -> Result<(), TrainError> {
        fill(&SafeFile::open(self.path.join(MODEL))?, "", parameters)?;
        for (moment, parameters) in ["m.", "v."].into_iter().zip(moments) {
            // Mapped for each anew, so that what was read of it is not held on to.
            fill(&SafeFile::open(self.path.join(OPTIMIZER))?, moment, parameters)?;
        }
        if self.recipe {
            return RecipeState::read(&self.path.join(RECIPE))?.restore(decoder);
        }
        let kept = decoder.recipe_state()?;
        match kept.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.wrong(format!(
                "it has no {RECIPE}, but the recipe keeps state (`{name}`) that a run cannot go on without; start a fresh run (`--fresh`)"
            ))),
        }
    }

    /// Fails unless it is of a run of `identity` by this version's arithmetic.
    pub(crate) fn expect(&self, identity: &str) -> Result<(), TrainError> {
        let State { identity: found, numerics_revision, .. } = &self.state;
        if found != identity {
            return Err(self.wrong(
                "it is of a run with other settings or other data; start a fresh run (`--fresh`)".into(),
            ));
        }
        if *numerics_revision != NUMERICS_REVISION {
            return Err(self.wrong(format!(
                "it was made by numerics revision {numerics_revision}, this is {NUMERICS_REVISION}; start a fresh run (`--fresh`)"
            )));
        }
        Ok(())
    }

    fn wrong(&self, what: String) -> TrainError {
        TrainError::Checkpoint { path: self.path.clone(), what }
    }
}

fn fill(file: &SafeFile, prefix: &str, parameters: &mut Parameters) -> Result<(), TrainError> {
    let specs = parameters.specs().to_vec();
    for (spec, tensor) in specs.iter().zip(parameters.tensors_mut()) {
        let name = format!("{prefix}{}", spec.name);
        let wrong = |what: String| TrainError::Checkpoint { path: file.path().to_owned(), what };
        let stored = file.get(&name).ok_or_else(|| wrong(format!("tensor `{name}` is missing")))?;
        if stored.dtype != StoredType::F32 || stored.shape != spec.shape {
            return Err(wrong(format!(
                "tensor `{name}` is {:?} {:?}, expected F32 {:?}",
                stored.dtype, stored.shape, spec.shape
            )));
        }
        let from = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        if tensor.card().is_some() {
            let elements: Vec<f32> = stored.bytes.chunks_exact(4).map(from).collect();
            tensor.set_f32(&elements)?;
            continue;
        }
        for (x, bytes) in tensor.f32_mut().iter_mut().zip(stored.bytes.chunks_exact(4)) {
            *x = from(bytes);
        }
    }
    Ok(())
}
