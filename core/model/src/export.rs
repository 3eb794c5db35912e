//! A model as a Hugging Face folder: `config.json`, safetensors in one file or in shards, the tokenizer's files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use half::bf16;
use safetensors::Dtype as StoredType;
use serde_json::{Map, Value, json};

use crate::error::{AtPath, ModelError};
use crate::folder::{CONFIG, INDEX, SINGLE};
use crate::new_file::{NewFile, Written};
use crate::safe_writer::write_until;
use crate::staged_folder::{MANIFEST, StagedFolder};
use crate::{ModelConfig, NamedTensor, ParameterSpec, Parameters, TensorData, parameter_specs};

/// Files that belong to a model besides its weights and configuration.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Elements looked at together.
const BLOCK: usize = 1 << 12;

/// The least number that rounds to no f16: half a unit above the largest, 65504.
const F16_OVERFLOW: f32 = 65520.0;

/// Element type of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportType {
    /// The masters as they are.
    F32,
    /// Rounded to nearest even.
    Bf16,
    /// Rounded to nearest even; weights that would become more than 65504 are an error.
    F16,
}

impl ExportType {
    /// As `config.json` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Whether `x` is a number that stays one.
    fn holds(self, x: f32) -> bool {
        match self {
            Self::F32 => x.is_finite(),
            Self::Bf16 => bf16::from_f32(x).is_finite(),
            Self::F16 => x.abs() < F16_OVERFLOW,
        }
    }

    fn stored(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::Bf16 => StoredType::BF16,
            Self::F16 => StoredType::F16,
        }
    }
}

/// How a model is written.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Element type of all weights.
    pub dtype: ExportType,
    /// A file holds no more bytes of tensors than this, unless it is one tensor.
    pub max_shard_bytes: u64,
    /// Files that are copied: see [`companion_files`].
    pub tokenizer_files: Vec<PathBuf>,
    /// Whether a model folder that something else wrote may be replaced.
    pub overwrite: bool,
    /// Soon after it is set, the export ends with [`ModelError::Stopped`].
    pub stop: Arc<AtomicBool>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            dtype: ExportType::Bf16,
            max_shard_bytes: 5_000_000_000,
            tokenizer_files: Vec::new(),
            overwrite: false,
            stop: Arc::default(),
        }
    }
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size and digest.
    pub written: Written,
}

/// The tokenizer's and generation's files that `folder` has.
pub fn companion_files(folder: &Path) -> Vec<PathBuf> {
    COMPANIONS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// Writes `folder`; the same parameters and options give the same bytes.
///
/// The folder appears in one step once all of it is on the disk; on an error nothing is left and what was there stays. A
/// weight that is not finite, or would not be in the type of the export, is an error before anything is written.
/// It may exist if it is empty or an earlier export, which is then replaced; a model folder from elsewhere needs
/// [`ExportOptions::overwrite`], and any other folder is left alone.
///
/// # Panics
/// If `parameters` are not those of `config`, or `config` is not what its own `raw` says.
pub fn export(
    folder: &Path,
    config: &ModelConfig,
    parameters: &Parameters,
    options: &ExportOptions,
) -> Result<Vec<ExportedFile>, ModelError> {
    assert_eq!(parameters.specs(), parameter_specs(config), "parameters of another configuration");
    check_values(folder, parameters, options.dtype)?;
    let stage = StagedFolder::beside(folder, options.overwrite)?;
    let mut out = Files { folder: stage.path(), written: Vec::new() };
    out.json(CONFIG, &Value::Object(exported_config(config, options.dtype)))?;
    for source in &options.tokenizer_files {
        out.copy(source)?;
    }
    out.weights(parameters, options)?;
    let files: Map<_, _> = out
        .written
        .iter()
        .map(|ExportedFile { name, written: Written { bytes, digest } }| {
            (name.clone(), json!({ "bytes": bytes, "blake3": digest.to_hex().as_str() }))
        })
        .collect();
    let written_by = concat!("fp8flow ", env!("CARGO_PKG_VERSION"));
    out.json(MANIFEST, &json!({ "written_by": written_by, "dtype": options.dtype.name(), "files": files }))?;
    let written = out.written;
    stage.commit()?;
    Ok(written)
}

/// Finds the first weight that `dtype` cannot hold.
fn check_values(folder: &Path, parameters: &Parameters, dtype: ExportType) -> Result<(), ModelError> {
    for (spec, tensor) in parameters.iter() {
        let elements = tensor.f32();
        // Without an early end, the look at a block is vectors.
        let sound = |block: &[f32]| block.iter().fold(true, |sound, &x| sound & dtype.holds(x));
        if elements.chunks(BLOCK).all(sound) {
            continue;
        }
        if let Some(index) = elements.iter().position(|&x| !dtype.holds(x)) {
            return Err(ModelError::Range {
                folder: folder.to_path_buf(),
                name: spec.name.clone(),
                at: spec.at(index),
                value: elements[index],
                dtype: dtype.name(),
            });
        }
    }
    Ok(())
}

/// The file as it was read, with the type of the new weights and the architecture that loads them.
fn exported_config(config: &ModelConfig, dtype: ExportType) -> Map<String, Value> {
    let mut raw = config.raw.clone();
    raw.insert("dtype".into(), dtype.name().into());
    if let Some(old_spelling) = raw.get_mut("torch_dtype") {
        *old_spelling = dtype.name().into();
    }
    if raw.get("architectures").is_none_or(Value::is_null) {
        raw.insert("architectures".into(), json!(["LlamaForCausalLM"]));
    }
    let read_back = ModelConfig::from_json(&Value::Object(raw.clone()).to_string(), Path::new(CONFIG));
    let same = read_back.is_ok_and(|read| ModelConfig { raw: config.raw.clone(), ..read } == *config);
    assert!(same, "a configuration that differs from its own file");
    raw
}

/// The files written so far.
struct Files<'a> {
    folder: &'a Path,
    written: Vec<ExportedFile>,
}

impl Files<'_> {
    fn add(&mut self, name: String, written: Written) {
        self.written.push(ExportedFile { name, written });
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<(), ModelError> {
        let written = NewFile::write(&self.folder.join(name), |out| writeln!(out, "{value:#}"))?;
        self.add(name.to_owned(), written);
        Ok(())
    }

    fn copy(&mut self, source: &Path) -> Result<(), ModelError> {
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = std::fs::read(source).at(source, "read")?;
        let reserved = [SINGLE, INDEX, MANIFEST].contains(&name.as_str());
        if reserved || self.written.iter().any(|file| file.name == name) {
            let problem = format!("cannot be copied into the export, which has a file `{name}` already");
            return Err(ModelError::Target { path: source.to_path_buf(), problem });
        }
        let written = NewFile::write(&self.folder.join(&name), |out| out.write_all(&bytes))?;
        self.add(name, written);
        Ok(())
    }

    fn weights(&mut self, parameters: &Parameters, options: &ExportOptions) -> Result<(), ModelError> {
        let dtype = options.dtype.stored();
        let size = |spec: &ParameterSpec| spec.len() as u64 * (dtype.bitsize() / 8) as u64;
        let all: Vec<_> = parameters.iter().collect();
        let shards = shards(all.iter().map(|(spec, _)| size(spec)), options.max_shard_bytes);
        let mut weight_map = Map::new();
        let mut rest = all.as_slice();
        for (number, &count) in (1..).zip(&shards) {
            let (shard, after) = rest.split_at(count);
            rest = after;
            let name = match shards.len() {
                1 => SINGLE.to_owned(),
                n => format!("model-{number:05}-of-{n:05}.safetensors"),
            };
            let tensors = shard.iter().map(|(spec, tensor)| NamedTensor {
                name: spec.name.clone(),
                dtype,
                shape: spec.shape.clone(),
                data: TensorData::F32(tensor.f32()),
            });
            let path = self.folder.join(&name);
            let written = write_until(&path, tensors, &[("format", "pt")], &options.stop)?;
            weight_map.extend(shard.iter().map(|(spec, _)| (spec.name.clone(), json!(name))));
            self.add(name, written);
        }
        if shards.len() > 1 {
            let total: u64 = all.iter().map(|(spec, _)| size(spec)).sum();
            self.json(INDEX, &json!({ "metadata": { "total_size": total }, "weight_map": weight_map }))?;
        }
        Ok(())
    }
}

/// How many tensors, in their order, go into each file.
fn shards(sizes: impl Iterator<Item = u64>, most: u64) -> Vec<usize> {
    let mut counts = vec![0];
    let mut held = 0_u64;
    for size in sizes {
        if let Some(count) =
            counts.last_mut().filter(|count| **count == 0 || held.saturating_add(size) <= most)
        {
            *count += 1;
            held = held.saturating_add(size);
        } else {
            counts.push(1);
            held = size;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_filled_in_order_and_a_large_tensor_stands_alone() {
        assert_eq!(shards([4, 4, 4].into_iter(), 12), [3]);
        assert_eq!(shards([4, 4, 4].into_iter(), 11), [2, 1]);
        assert_eq!(shards([1, 20, 1, 1].into_iter(), 8), [1, 1, 2]);
        assert_eq!(shards([20, 1].into_iter(), 8), [1, 1]);
    }
}
