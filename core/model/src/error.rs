//! What can be wrong with a model folder, said to the person who can mend it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype as StoredType;

/// Why a folder was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "open", "write", …
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Asked to stop before all was read or written; nothing is left of it.
    #[error("stopped as asked")]
    Stopped,
    /// A JSON file does not parse.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What was expected there.
        message: String,
    },
    /// A key of `config.json` has a value that no model can have.
    #[error("{}: `{key}` {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, with those it lies under: `rope_parameters.factor`.
        key: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A key of `config.json` asks for a feature that is not there.
    #[error("{}: `{key}` = {found} is not supported; {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        found: String,
        /// What is.
        supported: String,
    },
    /// The weights are codes, not numbers that training could move.
    #[error("{}: {key} = {found}: {}", path.display(), why(*asked, *in_blocks))]
    Quantized {
        /// The file.
        path: PathBuf,
        /// The key that says so: `quantization_config.quant_method`.
        key: String,
        /// Its value, as JSON.
        found: String,
        /// Whether it is FP8 in blocks, which can be multiplied out.
        in_blocks: bool,
        /// Whether that was asked for.
        asked: bool,
    },
    /// A safetensors file whose header and size do not fit each other.
    #[error("{}: not a sound safetensors file: {problem}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor's name where one is at fault.
        problem: String,
    },
    /// A folder without weights, or an index that cannot be followed.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder or the index.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Weights that are not those of the configuration.
    #[error("{}: the weights do not fit config.json:{}", folder.display(), list(findings))]
    Weights {
        /// The folder.
        folder: PathBuf,
        /// Everything that does not fit.
        findings: Vec<Finding>,
    },
    /// A weight that no arithmetic can go on from.
    #[error("{}: `{name}` holds {value} at {at:?}: the weights of a model are finite numbers", folder.display())]
    NotFinite {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        name: String,
        /// The first such element, an index for each dimension.
        at: Vec<usize>,
        /// NaN or infinite.
        value: f32,
    },
    /// A weight that the type of an export has no number for.
    #[error("{}: `{name}` holds {value} at {at:?}, which {dtype} cannot hold{}; nothing is written", folder.display(), wider(*value, dtype))]
    Range {
        /// The folder to be written.
        folder: PathBuf,
        /// The tensor.
        name: String,
        /// The first such element, an index for each dimension.
        at: Vec<usize>,
        /// Its value.
        value: f32,
        /// The type of the export.
        dtype: &'static str,
    },
    /// An export that would destroy something.
    #[error("{}: {problem}", path.display())]
    Target {
        /// The folder to be written.
        path: PathBuf,
        /// Why it is left alone, and what to do.
        problem: String,
    },
}

/// One way in which stored weights differ from what the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// In no file.
    Missing {
        /// The tensor.
        name: String,
    },
    /// In a file, but the model has no such parameter.
    Unexpected {
        /// The tensor.
        name: String,
        /// The file's name.
        file: String,
    },
    /// Of another shape.
    Shape {
        /// The tensor.
        name: String,
        /// As stored.
        found: Vec<usize>,
        /// As configured.
        expected: Vec<usize>,
    },
    /// Of a type that is not read.
    Type {
        /// The tensor.
        name: String,
        /// As stored.
        found: StoredType,
    },
    /// Codes, but not those that can be multiplied out.
    Codes {
        /// The tensor.
        name: String,
        /// As stored.
        found: StoredType,
    },
    /// E4M3 codes without their scales.
    ScalesMissing {
        /// The tensor.
        name: String,
        /// The tensor of its scales, which is in no file.
        scales: String,
    },
    /// In two files.
    Duplicate {
        /// The tensor.
        name: String,
        /// The files' names.
        files: [String; 2],
    },
    /// Not where the index says.
    Misplaced {
        /// The tensor.
        name: String,
        /// The file that the index names, if it knows the tensor.
        indexed: Option<String>,
        /// The file that holds it, if one does.
        found: Option<String>,
    },
    /// The configuration ties the head to the embedding, but the file holds a head with other numbers.
    HeadDiffers,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name } => write!(f, "`{name}` is missing"),
            Self::Unexpected { name, file } => {
                write!(f, "`{name}` in {file} is no parameter of this configuration")
            }
            Self::Shape { name, found, expected } => {
                write!(f, "`{name}` has shape {found:?}, expected {expected:?}")
            }
            Self::Type { name, found } => {
                write!(f, "`{name}` is stored as {found}; F32, BF16 and F16 are read")
            }
            Self::Codes { name, found } => write!(
                f,
                "`{name}` is stored as {found}; F8_E4M3 with a scale for each block, F32, BF16 and F16 are read"
            ),
            Self::ScalesMissing { name, scales } => {
                write!(f, "`{name}` is stored as F8_E4M3, but `{scales}` with the scales of its blocks is missing")
            }
            Self::Duplicate { name, files: [first, second] } => {
                write!(f, "`{name}` is in both {first} and {second}")
            }
            Self::Misplaced { name, indexed, found } => {
                let place = |file: &Option<String>, none| match file {
                    Some(file) => format!("in {file}"),
                    None => String::from(none),
                };
                let (indexed, found) = (place(indexed, "nowhere"), place(found, "in none of the files"));
                write!(f, "`{name}` is {indexed} by the index, but {found}")
            }
            Self::HeadDiffers => f.write_str(
                "`lm_head.weight` differs from `model.embed_tokens.weight`, though `tie_word_embeddings` makes them one",
            ),
        }
    }
}

/// What to do about a value that is too large for `dtype`.
fn wider(value: f32, dtype: &str) -> &'static str {
    match (value.is_finite(), dtype) {
        (true, "float16") => " (its largest is 65504): export as bf16 or f32",
        (true, _) => ": export as f32",
        (false, _) => " as a number",
    }
}

/// Why quantised weights are of no use.
fn why(asked: bool, in_blocks: bool) -> &'static str {
    match (asked, in_blocks) {
        (false, false) => "quantised weights cannot be trained; take the model that they were made from",
        (false, true) => "quantised weights cannot be trained unless they are multiplied out to f32 first",
        (true, _) => {
            "these weights cannot be dequantised: only `quant_method` = \"fp8\" with a `weight_block_size` of two \
             numbers can, E4M3 codes with a scale for each block"
        }
    }
}

/// The first findings, one a line, and how many more there are.
fn list(findings: &[Finding]) -> String {
    const SHOWN: usize = 8;
    let mut lines: Vec<_> = findings.iter().take(SHOWN).map(|finding| format!("\n  {finding}")).collect();
    if findings.len() > SHOWN {
        lines.push(format!("\n  and {} more", findings.len() - SHOWN));
    }
    lines.concat()
}

/// Adds file and attempt to an answer of the operating system.
pub(crate) trait AtPath<T> {
    /// `action` completes "cannot …".
    fn at(self, path: &Path, action: &'static str) -> Result<T, ModelError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, ModelError> {
        self.map_err(|source| ModelError::Io { path: path.to_path_buf(), action, source })
    }
}

/// An error of `serde_json` with its place in front rather than at the end.
pub(crate) fn json_error(path: &Path, error: &serde_json::Error) -> ModelError {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    ModelError::Json { path: path.to_path_buf(), line: error.line(), column: error.column(), message }
}
