//! Files of a run as others left them: understood, or named with what is wrong.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// Reads the JSON object in `path`, whose `format` must be this one.
pub(crate) fn json<T: DeserializeOwned>(path: &Path, format: u32) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("not a JSON file: {error}")))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(found) if found == u64::from(format) => {}
        Some(found) => {
            let what = format!("has format {found}; this version of fp8flow knows {format}");
            return Err(Error::Format { path: path.to_owned(), what });
        }
        None => return Err(damaged("no `format` says what it is".into())),
    }
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
}
