//! A `tokenizer.json`, and what the files beside it say of special tokens and chats.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::ModelWrapper;

use crate::DataError;

/// Files beside a `tokenizer.json`, any of which may be absent.
const SPECIALS: &str = "special_tokens_map.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Far more than the largest vocabulary takes.
const MOST_BYTES: u64 = 1 << 30;

/// Text to tokens and back.
///
/// Nothing is truncated, padded or added, whatever the file asks for: templates and cutoffs say what is wanted.
pub struct Tokenizer {
    /// Encodes the text of a special token as text, so that a dataset cannot forge the end of a turn.
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    vocabulary: usize,
    bos: Option<Special>,
    eos: Option<Special>,
    /// Whether texts are to begin with `bos`.
    add_bos: bool,
    chat: Option<ChatTemplate>,
    /// Special tokens by their names in a chat template: `bos_token`, `eos_token`, ….
    names: Vec<(String, String)>,
}

/// A token with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// As text.
    pub text: String,
    /// As a token.
    pub id: u32,
}

/// A folder's own chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChatTemplate {
    pub(crate) source: String,
    pub(crate) path: PathBuf,
}

/// The part of `tokenizer.json` that the library does not check.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    added_tokens: Vec<ListedToken>,
}

#[derive(Deserialize)]
struct ListedToken {
    id: u32,
    content: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocabulary", &self.vocabulary)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a folder, with `tokenizer_config.json`, `special_tokens_map.json` and
    /// `chat_template.jinja` beside it where they exist.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let (folder, path) = if path.is_dir() {
            (path.to_owned(), path.join("tokenizer.json"))
        } else {
            (path.parent().unwrap_or(Path::new("")).to_owned(), path.to_owned())
        };
        let bytes =
            read(&path).map_err(|source| DataError::Io { action: "read", path: path.clone(), source })?;
        let inner = parse(&bytes, &path)?;
        let vocabulary = vocabulary(&inner, &path)?;
        let mut tokenizer = Self {
            inner,
            path,
            vocabulary,
            bos: None,
            eos: None,
            add_bos: true,
            chat: None,
            names: Vec::new(),
        };
        tokenizer.read_specials(&folder.join(SPECIALS))?;
        tokenizer.read_specials(&folder.join(CONFIG))?;
        let jinja = folder.join(TEMPLATE);
        if let Some(bytes) = read_if_there(&jinja)? {
            let source = String::from_utf8(bytes)
                .map_err(|_| wrong(&jinja, "text in UTF-8", "bytes that are none"))?;
            tokenizer.chat = Some(ChatTemplate { source, path: jinja });
        }
        Ok(tokenizer)
    }

    /// The files that [`open`](Self::open) has read or looked for.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let beside = [SPECIALS, CONFIG, TEMPLATE].map(|name| self.path.with_file_name(name));
        std::iter::once(self.path.clone()).chain(beside)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The largest id and one more, added tokens included: the rows that an embedding needs at least.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The token that begins texts, if there is one.
    pub fn bos(&self) -> Option<&Special> {
        self.bos.as_ref()
    }

    /// The token that ends texts, if there is one.
    pub fn eos(&self) -> Option<&Special> {
        self.eos.as_ref()
    }

    /// The token to put before a text: [`bos`](Self::bos), unless the configuration says `add_bos_token: false`.
    pub(crate) fn leading(&self) -> Option<u32> {
        self.bos.as_ref().filter(|_| self.add_bos).map(|special| special.id)
    }

    /// The folder's own chat template.
    pub(crate) fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// Special tokens by their names in a chat template.
    pub(crate) fn names(&self) -> &[(String, String)] {
        &self.names
    }

    /// The id of a token, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokens of `text` and nothing else; the text of a special token is text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = guarded(|| self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens; special ones are left out unless `special`.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, String> {
        guarded(|| self.inner.decode(ids, !special))
    }

    /// A copy of the library's tokenizer that takes the text of a special token for the token.
    pub(crate) fn marked(&self) -> tokenizers::Tokenizer {
        let mut marked = self.inner.clone();
        marked.set_encode_special_tokens(false);
        marked
    }

    /// Takes special tokens, `add_bos_token` and the chat template from a configuration file, if it is there.
    fn read_specials(&mut self, path: &Path) -> Result<(), DataError> {
        let Some(bytes) = read_if_there(path)? else { return Ok(()) };
        let config: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(path, "a JSON object", error.to_string()))?;
        for (key, value) in &config {
            let text = match value {
                Value::String(text) => text,
                Value::Object(token) => match token.get("content") {
                    Some(Value::String(text)) => text,
                    _ => continue,
                },
                _ => continue,
            };
            if !key.ends_with("_token") {
                continue;
            }
            if let Some(id) = self.inner.token_to_id(text) {
                let special = Special { text: text.clone(), id };
                match key.as_str() {
                    "bos_token" => self.bos = Some(special),
                    "eos_token" => self.eos = Some(special),
                    _ => {}
                }
            }
            self.names.retain(|(known, _)| known != key);
            self.names.push((key.clone(), text.clone()));
        }
        if let Some(Value::Bool(add)) = config.get("add_bos_token") {
            self.add_bos = *add;
        }
        let source = match config.get("chat_template") {
            Some(Value::String(source)) => Some(source),
            // Several by name: the one that transformers takes without being asked.
            Some(Value::Array(named)) => {
                named.iter().find_map(|entry| match (&entry["name"], &entry["template"]) {
                    (Value::String(name), Value::String(source)) if name == "default" => Some(source),
                    _ => None,
                })
            }
            _ => None,
        };
        if let Some(source) = source {
            self.chat = Some(ChatTemplate { source: source.clone(), path: path.to_owned() });
        }
        Ok(())
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let expected = "a tokenizer.json of the `tokenizers` library";
    let mut inner =
        guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|error| wrong(path, expected, error))?;
    let _ = inner.with_truncation(None).map_err(|error| wrong(path, expected, error.to_string()))?;
    inner.with_padding(None);
    inner.set_encode_special_tokens(true);
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        // Dropout draws from a generator of its own: no run could be repeated.
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(ModelWrapper::BPE(bpe));
    }
    let listed: Listed =
        serde_json::from_slice(bytes).map_err(|error| wrong(path, expected, error.to_string()))?;
    for token in listed.added_tokens {
        let id = inner.token_to_id(&token.content);
        if id != Some(token.id) {
            let found = id.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(wrong(
                path,
                &format!("the id {} for the added token `{}`", token.id, token.content),
                found,
            ));
        }
    }
    Ok(inner)
}

fn vocabulary(inner: &tokenizers::Tokenizer, path: &Path) -> Result<usize, DataError> {
    match inner.get_vocab(true).into_values().max() {
        None => Err(wrong(path, "a vocabulary", "an empty one")),
        Some(id) if id >= i32::MAX as u32 => Err(wrong(path, "token ids below 2147483647", id.to_string())),
        Some(id) => Ok(id as usize + 1),
    }
}

/// The library indexes and unwraps on what it reads from files: a panic there is an error of the file, not of ours.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library failed on it (its files contradict each other)".to_owned()),
    }
}

/// As [`Tokenizer::encode`] on a [`marked`](Tokenizer::marked) one, with the bytes that each token stands for.
pub(crate) fn encode_with_offsets(
    marked: &tokenizers::Tokenizer,
    text: &str,
) -> Result<tokenizers::Encoding, String> {
    guarded(|| marked.encode(text, false))
}

/// The bytes of a file of a size that one of these can have.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    let refused = |what: String| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    // A pipe would not be opened before somebody writes to it, and a device may have no end.
    if !about.is_file() {
        return refused("it is not a regular file".into());
    }
    if about.len() > MOST_BYTES {
        return refused(format!("it has {} bytes, more than any tokenizer", about.len()));
    }
    std::fs::read(path)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn wrong(path: &Path, expected: &str, found: impl Into<String>) -> DataError {
    DataError::File { path: path.to_owned(), expected: expected.to_owned(), found: found.into() }
}
