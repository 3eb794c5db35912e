//! Weights of a folder, checked against a configuration from the headers alone, then read as f32 masters.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_kernels::Parallel;
use safetensors::Dtype as StoredType;

use crate::error::{Finding, ModelError};
use crate::folder::WeightFiles;
use crate::stored::Stored;
use crate::tasks::for_each;
use crate::{BlockScales, ModelConfig, ParameterSpec, Parameters, StoredTensor, parameter_specs};

/// The output head, absent or a copy where it is tied.
const HEAD: &str = "lm_head.weight";
/// What a tied head is.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Old checkpoints hold the rotary frequencies, which follow from the configuration.
const HARMLESS_SUFFIX: &str = "rotary_emb.inv_freq";
/// What the name of a weight's scales ends with, instead of the weight's own [`WEIGHT_SUFFIX`].
const SCALES_SUFFIX: &str = ".weight_scale_inv";
const WEIGHT_SUFFIX: &str = ".weight";

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
    blocks: Option<BlockScales>,
}

impl Weights {
    /// Maps the files of `folder` and compares their headers with `config`: milliseconds, whatever their size.
    ///
    /// Everything that does not fit is reported at once. Only a tied head that is stored as well waits for
    /// [`Weights::load`]: whether it is the embedding shows in its numbers alone.
    pub fn open(folder: impl Into<PathBuf>, config: &ModelConfig) -> Result<Self, ModelError> {
        Self::open_dequantized(folder, config, None)
    }

    /// The same for weights that may lie as E4M3 codes with `X.weight_scale_inv` for the `blocks` of `X.weight`, as
    /// [`ModelConfig::open_dequantized`] tells. [`Weights::load`] multiplies them out.
    pub fn open_dequantized(
        folder: impl Into<PathBuf>,
        config: &ModelConfig,
        blocks: Option<BlockScales>,
    ) -> Result<Self, ModelError> {
        let folder = folder.into();
        let files = WeightFiles::open(&folder)?;
        let specs = parameter_specs(config);
        let findings = compare(&files, &specs, config.tied, blocks);
        if findings.is_empty() {
            Ok(Self { folder, files, specs, tied: config.tied, blocks })
        } else {
            Err(ModelError::Weights { folder, findings })
        }
    }

    /// The files that hold the weights.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.files.values().map(crate::SafeFile::path)
    }

    /// The blocks that share a scale, where weights are codes.
    pub fn blocks(&self) -> Option<BlockScales> {
        self.blocks
    }

    /// Names, shapes and kinds of the parameters.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The type that `name` is stored in.
    pub fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.files.tensor(name).map(|tensor| tensor.dtype)
    }

    /// Reads every parameter as f32, on the threads of `pool`: exact for all plain types, and one rounding of code times
    /// scale for quantised ones. One that is not finite is an error.
    pub fn load(&self, pool: &dyn Parallel) -> Result<Parameters, ModelError> {
        self.load_until(pool, &AtomicBool::new(false))
    }

    /// The same; soon after `stop` is set it ends with [`ModelError::Stopped`].
    pub fn load_until(&self, pool: &dyn Parallel, stop: &AtomicBool) -> Result<Parameters, ModelError> {
        let mut parameters = Parameters::zeros(&self.specs);
        let mut parts = Vec::new();
        for (spec, tensor) in self.specs.iter().zip(parameters.tensors_mut()) {
            let mut rest = tensor.f32_mut();
            for (stored, rows) in self.stored(&spec.name).parts() {
                let (target, after) = rest.split_at_mut(stored.span(&rows).len());
                rest = after;
                parts.push((stored, rows, target));
            }
        }
        let finite = AtomicBool::new(true);
        for_each(pool, parts, |(stored, rows, target): (Stored<'_>, Range<usize>, &mut [f32])| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            stored.read(rows, target);
            if !target.iter().fold(true, |finite, x| finite & x.is_finite()) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        if stop.load(Ordering::Relaxed) {
            return Err(ModelError::Stopped);
        }
        if !finite.into_inner() {
            return Err(self.not_finite(&parameters));
        }
        if self.tied && !self.head_is_embedding(&parameters, pool) {
            return Err(ModelError::Weights {
                folder: self.folder.clone(),
                findings: vec![Finding::HeadDiffers],
            });
        }
        Ok(parameters)
    }

    /// Names the first element that is not finite.
    fn not_finite(&self, parameters: &Parameters) -> ModelError {
        let first = parameters.iter().find_map(|(spec, tensor)| {
            let index = tensor.f32().iter().position(|x| !x.is_finite())?;
            Some((spec.name.clone(), spec.at(index), tensor.f32()[index]))
        });
        let (name, at, value) = first.unwrap_or_else(|| unreachable!("one was seen"));
        ModelError::NotFinite { folder: self.folder.clone(), name, at, value }
    }

    /// Whether a stored head, if there is one, has the bits of the embedding.
    fn head_is_embedding(&self, parameters: &Parameters, pool: &dyn Parallel) -> bool {
        let (Some(_), Some(embedding)) = (self.files.tensor(HEAD), parameters.index(EMBEDDING)) else {
            return true;
        };
        let embedding = parameters.tensors()[embedding].f32();
        let parts = self.stored(HEAD).parts().collect();
        let same = AtomicBool::new(true);
        for_each(pool, parts, |(head, rows): (Stored<'_>, Range<usize>)| {
            let expected = &embedding[head.span(&rows)];
            let mut found = vec![0.0; expected.len()];
            head.read(rows, &mut found);
            if found.iter().zip(expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
                same.store(false, Ordering::Relaxed);
            }
        });
        same.into_inner()
    }

    /// A parameter that the check has seen, with its scales if it has any.
    fn stored(&self, name: &str) -> Stored<'_> {
        let tensor = self.tensor(name);
        match (self.blocks, scales_of(name)) {
            (Some(blocks), Some(scales)) if tensor.dtype == StoredType::F8_E4M3 => {
                Stored::scaled(tensor, self.tensor(&scales), blocks)
            }
            _ => Stored::plain(tensor),
        }
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

/// The name of the scales of the weight `name`, if it is a weight's.
fn scales_of(name: &str) -> Option<String> {
    Some(format!("{}{SCALES_SUFFIX}", name.strip_suffix(WEIGHT_SUFFIX)?))
}

/// Everything in `files` that is not as `specs` wants it.
fn compare(
    files: &WeightFiles,
    specs: &[ParameterSpec],
    tied: bool,
    blocks: Option<BlockScales>,
) -> Vec<Finding> {
    let mut expected: BTreeMap<String, Vec<usize>> =
        specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
    // What an index knows but its file lacks is said by `compare_index`.
    let indexed = |name: &str| files.index.as_ref().is_some_and(|index| index.contains_key(name));
    let mut findings = Vec::new();
    for spec in specs {
        if files.tensor(&spec.name).is_none() && !indexed(&spec.name) {
            findings.push(Finding::Missing { name: spec.name.clone() });
        }
    }
    if tied {
        expected.insert(HEAD.into(), expected[EMBEDDING].clone());
    }
    let quantized = blocks.map(|blocks| quantized(files, &expected, blocks));
    for (name, scales, shape) in quantized.into_iter().flatten() {
        if files.tensor(&scales).is_none() && !indexed(&scales) {
            findings.push(Finding::ScalesMissing { name, scales: scales.clone() });
        }
        expected.insert(scales, shape);
    }
    let mut seen = BTreeMap::new();
    for (file, tensors) in &files.files {
        for (name, stored) in tensors.iter() {
            if let Some(first) = seen.insert(name, file) {
                let files = [first.clone(), file.clone()];
                findings.push(Finding::Duplicate { name: name.to_owned(), files });
            } else if let Some(shape) = expected.get(name) {
                compare_tensor(name, shape, stored, blocks, &mut findings);
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

/// Matrices that are stored as E4M3 codes: their name, the name of their scales, and the shape that these must have.
fn quantized(
    files: &WeightFiles,
    expected: &BTreeMap<String, Vec<usize>>,
    blocks: BlockScales,
) -> Vec<(String, String, Vec<usize>)> {
    let is_codes = |name: &str| files.tensor(name).is_some_and(|stored| stored.dtype == StoredType::F8_E4M3);
    let mut found = Vec::new();
    for (name, shape) in expected {
        if let ([n, k], Some(scales), true) = (shape.as_slice(), scales_of(name), is_codes(name)) {
            found.push((name.clone(), scales, blocks.grid(*n, *k).to_vec()));
        }
    }
    found
}

fn compare_tensor(
    name: &str,
    shape: &[usize],
    stored: StoredTensor<'_>,
    blocks: Option<BlockScales>,
    findings: &mut Vec<Finding>,
) {
    let name = name.to_owned();
    let found = stored.dtype;
    let is_matrix = shape.len() == 2 && !name.ends_with(SCALES_SUFFIX);
    if stored.shape != shape {
        findings.push(Finding::Shape { name, found: stored.shape.to_vec(), expected: shape.to_vec() });
    } else if blocks.is_some() && is_matrix {
        if !Stored::is_plain(found) && found != StoredType::F8_E4M3 {
            findings.push(Finding::Codes { name, found });
        }
    } else if !Stored::is_plain(found) {
        findings.push(Finding::Type { name, found });
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
