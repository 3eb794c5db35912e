//! From `config.json` to a [`ModelConfig`], in the spelling of transformers 5 (`rope_parameters`, `dtype`) and in the
//! one before it (`rope_theta`, `rope_scaling`, `torch_dtype`).
//!
//! Absent keys have the defaults of transformers' `LlamaConfig`, and where two spellings of one thing meet, the one
//! wins that wins there. A key that asks for another arithmetic is an error: a model is never read as something
//! that it is not.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ModelError, json_error};
use crate::folder::{config_path, read_text};
use crate::quantization::{self, BlockScales};
use crate::{ModelConfig, Rope, RopeScaling};

/// Largest size of anything: token numbers, labels and row numbers fit 31 bits.
const LARGEST: usize = i32::MAX as usize;
/// More blocks than any model has.
const MOST_BLOCKS: usize = 10_000;
/// More parameters than any machine holds: 4 TiB of f32.
const MOST_PARAMETERS: u128 = 1 << 40;
/// Base of the rotary frequencies if none is given.
const DEFAULT_THETA: f64 = 10_000.0;

impl ModelConfig {
    /// Reads `path`: a `config.json`, or the folder that holds one. Quantised weights are an error.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = config_path(path.as_ref());
        Self::from_json(&read_text(&path)?, &path)
    }

    /// The same for weights that [`Weights::load`](crate::Weights::load) is to multiply out: the configuration as it is
    /// without quantisation, and the blocks that share a scale, if any do. Other quantised weights are an error.
    pub fn open_dequantized(path: impl AsRef<Path>) -> Result<(Self, Option<BlockScales>), ModelError> {
        let path = config_path(path.as_ref());
        let mut raw = parse(&read_text(&path)?, &path)?;
        let blocks = quantization::take(&mut raw, &path, true)?;
        Ok((Self::from_raw(raw, &path)?, blocks))
    }

    /// The configuration that `text` is; `path` is where it was found, for errors.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let mut raw = parse(text, path)?;
        quantization::take(&mut raw, path, false)?;
        Self::from_raw(raw, path)
    }

    fn from_raw(raw: Map<String, Value>, path: &Path) -> Result<Self, ModelError> {
        let keys = Keys { path, under: "", map: &raw };
        refuse_other_models(&keys)?;

        let hidden_size = keys.size("hidden_size", Some(4096), LARGEST)?;
        let heads = keys.size("num_attention_heads", Some(32), LARGEST)?;
        if hidden_size % heads != 0 {
            return Err(keys.wrong(
                "num_attention_heads",
                format!("= {heads} does not divide hidden_size = {hidden_size}"),
            ));
        }
        let kv_heads = keys.size("num_key_value_heads", Some(heads), LARGEST)?;
        if heads % kv_heads != 0 {
            let problem = format!("= {kv_heads} does not divide num_attention_heads = {heads}");
            return Err(keys.wrong("num_key_value_heads", problem));
        }
        let head_dim = keys.size("head_dim", Some(hidden_size / heads), LARGEST)?;
        if head_dim % 2 != 0 {
            return Err(
                keys.wrong("head_dim", format!("is {head_dim}, and rotary embedding needs an even one"))
            );
        }
        let max_positions = keys.size("max_position_embeddings", Some(2048), LARGEST)?;
        let config = Self {
            vocab_size: keys.size("vocab_size", Some(32_000), LARGEST)?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size", Some(11_008), LARGEST)?,
            blocks: keys.size("num_hidden_layers", Some(32), MOST_BLOCKS)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: keys.number("rms_norm_eps", Some(1e-6), 0.0..=1.0)? as f32,
            rope: rope(&keys, max_positions)?,
            max_positions,
            tied: keys.flag("tie_word_embeddings")?,
            attention_bias: keys.flag("attention_bias")?,
            mlp_bias: keys.flag("mlp_bias")?,
            initializer_range: keys.number("initializer_range", Some(0.02), 0.0..=1.0)?,
            eos_token_ids: eos_token_ids(&keys)?,
            raw: Map::new(),
        };
        let parameters = count(&config);
        if parameters > MOST_PARAMETERS {
            let problem =
                format!("and the other sizes make {parameters} parameters, more than any machine holds");
            return Err(keys.wrong("hidden_size", problem));
        }
        Ok(Self { raw, ..config })
    }
}

fn parse(text: &str, path: &Path) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_str(text).map_err(|error| json_error(path, &error))
}

/// Parameters of a configuration whose sizes are at most 2³¹.
fn count(config: &ModelConfig) -> u128 {
    let [vocab, h, mlp, blocks, heads, kv_heads, head_dim] = [
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
        config.blocks,
        config.heads,
        config.kv_heads,
        config.head_dim,
    ]
    .map(|size| size as u128);
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let biases = q + 2 * kv + h + 2 * mlp + h;
    let block = 2 * q * h + 2 * kv * h + 3 * mlp * h + 2 * h + biases;
    2 * vocab * h + blocks * block + h
}

/// Errors for whatever would make another arithmetic of the same keys.
fn refuse_other_models(keys: &Keys<'_>) -> Result<(), ModelError> {
    match keys.get("model_type") {
        Some(Value::String(kind)) if kind == "llama" => {}
        Some(other) => return Err(keys.unsupported("model_type", other, "\"llama\" is")),
        None => return Err(keys.wrong("model_type", "is missing; \"llama\" is supported".into())),
    }
    let allowed: [(&str, &[Value], &str); 9] = [
        ("architectures", &[serde_json::json!(["LlamaForCausalLM"])], "[\"LlamaForCausalLM\"] is"),
        ("hidden_act", &["silu".into(), "swish".into()], "\"silu\" is"),
        ("pretraining_tp", &[1.into()], "1 is"),
        ("attention_dropout", &[0.into(), 0.0.into()], "0.0 is"),
        ("partial_rotary_factor", &[1.into(), 1.0.into()], "1.0 is"),
        ("sliding_window", &[], "full attention is, without this key"),
        ("use_sliding_window", &[false.into()], "full attention is"),
        ("per_layer_config", &[], "one configuration for all layers is"),
        ("is_encoder_decoder", &[false.into()], "a decoder is"),
    ];
    for (key, values, supported) in allowed {
        if let Some(found) = keys.get(key)
            && !values.contains(found)
        {
            return Err(keys.unsupported(key, found, supported));
        }
    }
    if let Some(found) = keys.get("layer_types") {
        let full = |kind: &Value| kind == "full_attention";
        if !found.as_array().is_some_and(|kinds| kinds.iter().all(full)) {
            return Err(keys.unsupported("layer_types", found, "\"full_attention\" in every layer is"));
        }
    }
    Ok(())
}

/// The rotary embedding. `rope_scaling` comes before `rope_parameters`, `rope_type` before `type`, and a base among
/// the parameters before one beside them.
fn rope(keys: &Keys<'_>, max_positions: usize) -> Result<Rope, ModelError> {
    // Wide enough for any model, and safe in f32 arithmetic.
    const BASE: std::ops::RangeInclusive<f64> = 1e-6..=1e12;
    let theta = keys.number("rope_theta", Some(DEFAULT_THETA), BASE)?;
    let mut under = None;
    for name in ["rope_scaling", "rope_parameters"] {
        match keys.get(name) {
            Some(Value::Object(map)) if map.is_empty() => {}
            Some(Value::Object(map)) => {
                under = Some(Keys { path: keys.path, under: name, map });
                break;
            }
            Some(other) => return Err(keys.wrong(name, format!("must be an object, found {other}"))),
            None => {}
        }
    }
    let Some(rope) = under else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    if let Some((key, value)) = rope.map.iter().find(|(_, value)| value.is_object()) {
        return Err(rope.unsupported(key, value, "one set of parameters for all layers is"));
    }
    if let Some(found) = rope.get("partial_rotary_factor")
        && found.as_f64() != Some(1.0)
    {
        return Err(rope.unsupported("partial_rotary_factor", found, "1.0 is"));
    }
    let theta = rope.number("rope_theta", Some(theta), BASE)?;
    let factor = || rope.number("factor", None, BASE);
    let type_key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match rope.get(type_key) {
        None => RopeScaling::None,
        Some(Value::String(kind)) if kind == "default" => RopeScaling::None,
        Some(Value::String(kind)) if kind == "linear" => RopeScaling::Linear { factor: factor()? },
        Some(Value::String(kind)) if kind == "llama3" => {
            let low_freq_factor = rope.number("low_freq_factor", None, BASE)?;
            let high_freq_factor = rope.number("high_freq_factor", None, BASE)?;
            if high_freq_factor <= low_freq_factor {
                let problem =
                    format!("= {high_freq_factor} must be above low_freq_factor = {low_freq_factor}");
                return Err(rope.wrong("high_freq_factor", problem));
            }
            let original = "original_max_position_embeddings";
            let place = if keys.get(original).is_some() { keys } else { &rope };
            let original_max_positions = place.size(original, Some(max_positions), LARGEST)?;
            let factor = factor()?;
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions }
        }
        Some(other) => {
            return Err(rope.unsupported(type_key, other, "\"default\", \"linear\" and \"llama3\" are"));
        }
    };
    Ok(Rope { theta, scaling })
}

/// One number, a list of them, or none; 2 if the key is absent, as in transformers.
fn eos_token_ids(keys: &Keys<'_>) -> Result<Vec<u32>, ModelError> {
    let key = "eos_token_id";
    let id = |value: &Value| {
        value.as_u64().filter(|&id| id <= LARGEST as u64).map(|id| id as u32).ok_or_else(|| {
            keys.wrong(key, format!("must be a token's number or a list of them, found {value}"))
        })
    };
    match keys.map.get(key) {
        None => Ok(vec![2]),
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// A JSON object of the file.
struct Keys<'a> {
    path: &'a Path,
    /// The key it lies under; empty for the whole file.
    under: &'a str,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    /// The value of `key`, unless it is null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A whole number from 1 to `largest`; a key without default must be there.
    fn size(&self, key: &str, default: Option<usize>, largest: usize) -> Result<usize, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        match value.as_u64() {
            Some(size) if (1..=largest as u64).contains(&size) => Ok(size as usize),
            _ => Err(self.wrong(key, format!("must be a whole number from 1 to {largest}, found {value}"))),
        }
    }

    /// A number in `range`.
    fn number(
        &self,
        key: &str,
        default: Option<f64>,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        value.as_f64().filter(|x| range.contains(x)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.wrong(key, format!("must be a number from {low:?} to {high:?}, found {value}"))
        })
    }

    /// True or false; false if absent.
    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, format!("must be true or false, found {other}"))),
        }
    }

    fn name(&self, key: &str) -> String {
        if self.under.is_empty() { key.to_owned() } else { format!("{}.{key}", self.under) }
    }

    fn missing(&self, key: &str) -> ModelError {
        self.wrong(key, "is missing".into())
    }

    fn wrong(&self, key: &str, problem: String) -> ModelError {
        ModelError::Config { path: self.path.to_path_buf(), key: self.name(key), problem }
    }

    fn unsupported(&self, key: &str, found: &Value, supported: &str) -> ModelError {
        ModelError::Unsupported {
            path: self.path.to_path_buf(),
            key: self.name(key),
            found: short(found),
            supported: supported.to_owned(),
        }
    }
}

/// A value as JSON, cut to a line.
pub(crate) fn short(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
