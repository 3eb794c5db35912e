//! Weights of a folder, checked against a configuration from the headers alone, then read as f32 masters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_kernels::Parallel;
use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype as StoredType;

use crate::error::{Finding, ModelError};
use crate::folder::WeightFiles;
use crate::tasks::for_each;
use crate::{ModelConfig, ParameterSpec, Parameters, StoredTensor, parameter_specs};

/// The output head, absent or a copy where it is tied.
const HEAD: &str = "lm_head.weight";
/// What a tied head is.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Old checkpoints hold the rotary frequencies, which follow from the configuration.
const HARMLESS_SUFFIX: &str = "rotary_emb.inv_freq";
/// Elements that one task converts.
const ELEMENTS_PER_TASK: usize = 1 << 18;

/// The weights of a folder: every tensor is there once, with the shape and a type that the configuration allows.
///
/// ```no_run
/// use fp8flow_model::{ModelConfig, Weights};
///
/// let config = ModelConfig::open("model")?;
/// let weights = Weights::open("model", &config)?; // reads headers only
/// let masters = weights.load(&fp8flow_kernels::Serial)?;
/// # Ok::<(), fp8flow_model::ModelError>(())
/// ```
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    files: WeightFiles,
    specs: Vec<ParameterSpec>,
    tied: bool,
}

impl Weights {
    /// Maps the files of `folder` and compares their headers with `config`: milliseconds, whatever their size.
    ///
    /// Everything that does not fit is reported at once. Only a tied head that is stored as well waits for
    /// [`Weights::load`]: whether it is the embedding shows in its numbers alone.
    pub fn open(folder: impl Into<PathBuf>, config: &ModelConfig) -> Result<Self, ModelError> {
        let folder = folder.into();
        let files = WeightFiles::open(&folder)?;
        let specs = parameter_specs(config);
        let findings = compare(&files, &specs, config.tied);
        if findings.is_empty() {
            Ok(Self { folder, files, specs, tied: config.tied })
        } else {
            Err(ModelError::Weights { folder, findings })
        }
    }

    /// The files that hold the weights.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.files.values().map(crate::SafeFile::path)
    }

    /// Names, shapes and kinds of the parameters.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The type that `name` is stored in.
    pub fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.files.tensor(name).map(|tensor| tensor.dtype)
    }

    /// Reads every parameter as f32, which is exact for all stored types, on the threads of `pool`.
    pub fn load(&self, pool: &dyn Parallel) -> Result<Parameters, ModelError> {
        let mut parameters = Parameters::zeros(&self.specs);
        let mut parts = Vec::new();
        for (spec, tensor) in self.specs.iter().zip(parameters.tensors_mut()) {
            let stored = self.tensor(&spec.name);
            let width = stored.dtype.bitsize() / 8;
            let sources = stored.bytes.chunks(ELEMENTS_PER_TASK * width);
            for (source, target) in sources.zip(tensor.f32_mut().chunks_mut(ELEMENTS_PER_TASK)) {
                parts.push((stored.dtype, source, target));
            }
        }
        for_each(pool, parts, |(dtype, source, target)| widen(dtype, source, target));
        if self.tied && !self.head_is_embedding(&parameters, pool) {
            return Err(ModelError::Weights {
                folder: self.folder.clone(),
                findings: vec![Finding::HeadDiffers],
            });
        }
        Ok(parameters)
    }

    /// Whether a stored head, if there is one, has the bits of the embedding.
    fn head_is_embedding(&self, parameters: &Parameters, pool: &dyn Parallel) -> bool {
        let (Some(head), Some(embedding)) = (self.files.tensor(HEAD), parameters.index(EMBEDDING)) else {
            return true;
        };
        let width = head.dtype.bitsize() / 8;
        let sources = head.bytes.chunks(ELEMENTS_PER_TASK * width);
        let parts = sources.zip(parameters.tensors()[embedding].f32().chunks(ELEMENTS_PER_TASK)).collect();
        let same = AtomicBool::new(true);
        for_each(pool, parts, |(source, expected): (&[u8], &[f32])| {
            let mut found = vec![0.0; expected.len()];
            widen(head.dtype, source, &mut found);
            if found.iter().zip(expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
                same.store(false, Ordering::Relaxed);
            }
        });
        same.into_inner()
    }

    /// A tensor that the check has seen.
    fn tensor(&self, name: &str) -> StoredTensor<'_> {
        self.files
            .tensor(name)
            .unwrap_or_else(|| unreachable!("`{name}` was there when the folder was opened"))
    }
}

impl WeightFiles {
    /// The tensor called `name`.
    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.files.values().find_map(|file| file.get(name))
    }
}

/// Everything in `files` that is not as `specs` wants it.
fn compare(files: &WeightFiles, specs: &[ParameterSpec], tied: bool) -> Vec<Finding> {
    let mut expected: BTreeMap<&str, &[usize]> =
        specs.iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice())).collect();
    let mut findings = Vec::new();
    for spec in specs {
        // What an index knows but its file lacks is said by `compare_index`.
        let indexed = files.index.as_ref().is_some_and(|index| index.contains_key(&spec.name));
        if files.tensor(&spec.name).is_none() && !indexed {
            findings.push(Finding::Missing { name: spec.name.clone() });
        }
    }
    if tied {
        expected.insert(HEAD, expected[EMBEDDING]);
    }
    let mut seen = BTreeMap::new();
    for (file, tensors) in &files.files {
        for (name, stored) in tensors.iter() {
            if let Some(first) = seen.insert(name, file) {
                let files = [first.clone(), file.clone()];
                findings.push(Finding::Duplicate { name: name.to_owned(), files });
            } else if let Some(&shape) = expected.get(name) {
                compare_tensor(name, shape, stored, &mut findings);
            } else if !name.ends_with(HARMLESS_SUFFIX) {
                findings.push(Finding::Unexpected { name: name.to_owned(), file: file.clone() });
            }
        }
    }
    if let Some(index) = &files.index {
        compare_index(files, index, &seen, &mut findings);
    }
    findings
}

fn compare_tensor(name: &str, shape: &[usize], stored: StoredTensor<'_>, findings: &mut Vec<Finding>) {
    let name = name.to_owned();
    if stored.shape != shape {
        findings.push(Finding::Shape { name, found: stored.shape.to_vec(), expected: shape.to_vec() });
    } else if !matches!(stored.dtype, StoredType::F32 | StoredType::BF16 | StoredType::F16) {
        findings.push(Finding::Type { name, found: stored.dtype });
    }
}

/// The index against the files: each must know of the tensors what the other does.
fn compare_index(
    files: &WeightFiles,
    index: &BTreeMap<String, String>,
    seen: &BTreeMap<&str, &String>,
    findings: &mut Vec<Finding>,
) {
    for (name, file) in index {
        if files.files[file].get(name).is_none() {
            let found = seen.get(name.as_str()).map(|&file| file.clone());
            findings.push(Finding::Misplaced { name: name.clone(), indexed: Some(file.clone()), found });
        }
    }
    for (&name, &file) in seen {
        if !index.contains_key(name) {
            let (name, found) = (name.to_owned(), Some(file.clone()));
            findings.push(Finding::Misplaced { name, indexed: None, found });
        }
    }
}

/// Stored elements as f32; exact.
fn widen(dtype: StoredType, source: &[u8], target: &mut [f32]) {
    const CHUNK: usize = 1024;
    match dtype {
        StoredType::F32 => {
            for (bytes, element) in source.as_chunks().0.iter().zip(target) {
                *element = f32::from_le_bytes(*bytes);
            }
        }
        StoredType::BF16 => {
            for (bytes, element) in source.as_chunks().0.iter().zip(target) {
                *element = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        StoredType::F16 => {
            let mut aligned = [f16::ZERO; CHUNK];
            for (source, target) in source.chunks(2 * CHUNK).zip(target.chunks_mut(CHUNK)) {
                for (bytes, half) in source.as_chunks().0.iter().zip(&mut aligned) {
                    *half = f16::from_le_bytes(*bytes);
                }
                aligned[..target.len()].convert_to_f32_slice(target);
            }
        }
        other => unreachable!("the check refuses {other}"),
    }
}
